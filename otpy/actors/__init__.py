"""Processes with the contract of Erlang/OTP, on asyncio and on pykka's protocol.

Stands alone: nothing here knows of language models.
"""

from __future__ import annotations

from otpy.actors import sys as sys
from otpy.actors.agent import Agent, AgentRef
from otpy.actors.caller import Caller
from otpy.actors.child_spec import BRUTAL_KILL, INFINITY, ChildSpec, ChildType, Restart
from otpy.actors.entries import Entry
from otpy.actors.gen_server import GenServer
from otpy.actors.gen_state_machine import GenStateMachine, in_state
from otpy.actors.groups import Answers, GroupMonitor, Groups, GroupsRef, Joined, Left
from otpy.actors.info import ProcessInfo, process_info, processes, registered
from otpy.actors.mailbox import Mailbox
from otpy.actors.messages import Call, Cast, Down, ExitMessage, Ignore, MonitorRef, NoReply, Reply, Stop, Timeout
from otpy.actors.named import Named, named
from otpy.actors.names import Names, Via, current_names, names_context, whereis
from otpy.actors.node import Node, new_event_loop
from otpy.actors.port import FirstLine, OsPid, Port, PortExited, PortLine, SendLine
from otpy.actors.process import Process, current_process, self_ref
from otpy.actors.pykka_actor import PykkaActor, PykkaActorRef
from otpy.actors.reasons import (
    CALLING_SELF,
    IGNORE,
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    TIMEOUT,
    BadReturnValue,
    Exit,
    Reason,
    Shutdown,
    is_abnormal,
)
from otpy.actors.ref import Ref
from otpy.actors.registry import ANY, Registry, RegistryName, RegistryRef
from otpy.actors.task import Task, TaskProcess
from otpy.actors.threads import Orphan, blocking, orphans
from otpy.actors.timers import Interval, Timer, demonitor, link, monitor, send_after, send_interval, unlink
from otpy.actors.transitions import (
    Action,
    CallEvent,
    CastEvent,
    EnterEvent,
    Event,
    EventTimeout,
    InfoEvent,
    InternalEvent,
    KeepState,
    NamedTimeout,
    NextState,
    Postpone,
    RepeatState,
    StateTimeout,
    TimeoutEvent,
)
from otpy.actors.watchdog import Watchdog

__all__ = [
    "ANY",
    "BRUTAL_KILL",
    "CALLING_SELF",
    "IGNORE",
    "INFINITY",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "TIMEOUT",
    "Action",
    "Agent",
    "AgentRef",
    "Answers",
    "BadReturnValue",
    "Call",
    "CallEvent",
    "Caller",
    "Cast",
    "CastEvent",
    "ChildSpec",
    "ChildType",
    "Down",
    "EnterEvent",
    "Entry",
    "Event",
    "EventTimeout",
    "Exit",
    "ExitMessage",
    "FirstLine",
    "GenServer",
    "GenStateMachine",
    "GroupMonitor",
    "Groups",
    "GroupsRef",
    "Ignore",
    "InfoEvent",
    "InternalEvent",
    "Interval",
    "Joined",
    "KeepState",
    "Left",
    "Mailbox",
    "MonitorRef",
    "Named",
    "NamedTimeout",
    "Names",
    "NextState",
    "NoReply",
    "Node",
    "Orphan",
    "OsPid",
    "Port",
    "PortExited",
    "PortLine",
    "Postpone",
    "Process",
    "ProcessInfo",
    "PykkaActor",
    "PykkaActorRef",
    "Reason",
    "Ref",
    "Registry",
    "RegistryName",
    "RegistryRef",
    "RepeatState",
    "Reply",
    "Restart",
    "SendLine",
    "Shutdown",
    "StateTimeout",
    "Stop",
    "Task",
    "TaskProcess",
    "Timeout",
    "TimeoutEvent",
    "Timer",
    "Via",
    "Watchdog",
    "blocking",
    "current_names",
    "current_process",
    "demonitor",
    "in_state",
    "is_abnormal",
    "link",
    "monitor",
    "named",
    "names_context",
    "new_event_loop",
    "orphans",
    "process_info",
    "processes",
    "registered",
    "self_ref",
    "send_after",
    "send_interval",
    "unlink",
    "whereis",
]
