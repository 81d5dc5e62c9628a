"""Processes with the contract of Erlang/OTP, on asyncio and on pykka's protocol.

Stands alone: nothing here knows of language models.
"""

from __future__ import annotations

from otpy.actors.caller import Caller
from otpy.actors.child_spec import BRUTAL_KILL, INFINITY, ChildSpec, ChildType, Restart
from otpy.actors.gen_server import GenServer
from otpy.actors.mailbox import Mailbox
from otpy.actors.messages import Call, Cast, Down, ExitMessage, Ignore, MonitorRef, NoReply, Reply, Stop, Timeout
from otpy.actors.names import Names, current_names, names_context, whereis
from otpy.actors.node import Node, new_event_loop
from otpy.actors.port import FirstLine, OsPid, Port, PortExited, PortLine
from otpy.actors.process import Process, current_process, self_ref
from otpy.actors.reasons import (
    CALLING_SELF,
    IGNORE,
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    BadReturnValue,
    Exit,
    Reason,
    Shutdown,
    is_abnormal,
)
from otpy.actors.ref import Ref
from otpy.actors.registry import Entry, Registry, RegistryRef
from otpy.actors.task import Task, TaskProcess
from otpy.actors.threads import Orphan, blocking, orphans
from otpy.actors.timers import Timer, demonitor, link, monitor, send_after, unlink

__all__ = [
    "BRUTAL_KILL",
    "CALLING_SELF",
    "IGNORE",
    "INFINITY",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "BadReturnValue",
    "Call",
    "Caller",
    "Cast",
    "ChildSpec",
    "ChildType",
    "Down",
    "Entry",
    "Exit",
    "ExitMessage",
    "FirstLine",
    "GenServer",
    "Ignore",
    "Mailbox",
    "MonitorRef",
    "Names",
    "NoReply",
    "Node",
    "Orphan",
    "OsPid",
    "Port",
    "PortExited",
    "PortLine",
    "Process",
    "Reason",
    "Ref",
    "Registry",
    "RegistryRef",
    "Reply",
    "Restart",
    "Shutdown",
    "Stop",
    "Task",
    "TaskProcess",
    "Timeout",
    "Timer",
    "blocking",
    "current_names",
    "current_process",
    "demonitor",
    "is_abnormal",
    "link",
    "monitor",
    "names_context",
    "new_event_loop",
    "orphans",
    "self_ref",
    "send_after",
    "unlink",
    "whereis",
]
