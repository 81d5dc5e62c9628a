"""Supervisors: processes that keep other processes alive by rule, or fail as a whole.

Stands alone, together with `otpy.actors`: nothing here knows of language models.
"""

from __future__ import annotations

from otpy.actors import BRUTAL_KILL, INFINITY, ChildSpec, ChildType, Restart
from otpy.supervisors.dynamic import DynamicSupervisor, DynamicSupervisorRef
from otpy.supervisors.partition import PartitionSupervisor, PartitionSupervisorRef, partition_of
from otpy.supervisors.ref import SupervisorRef
from otpy.supervisors.render import Branch
from otpy.supervisors.requests import ChildInfo, Counts
from otpy.supervisors.running import run
from otpy.supervisors.strategy import (
    ALL_SIGNIFICANT,
    ANY_SIGNIFICANT,
    NEVER,
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SIMPLE_ONE_FOR_ONE,
    AutoShutdown,
    Strategy,
)
from otpy.supervisors.supervisor import Supervisor
from otpy.supervisors.task_supervisor import TIMEOUT, Exited, Ok, Outcome, TaskSupervisor, TaskSupervisorRef

__all__ = [
    "ALL_SIGNIFICANT",
    "ANY_SIGNIFICANT",
    "BRUTAL_KILL",
    "INFINITY",
    "NEVER",
    "ONE_FOR_ALL",
    "ONE_FOR_ONE",
    "REST_FOR_ONE",
    "SIMPLE_ONE_FOR_ONE",
    "TIMEOUT",
    "AutoShutdown",
    "Branch",
    "ChildInfo",
    "ChildSpec",
    "ChildType",
    "Counts",
    "DynamicSupervisor",
    "DynamicSupervisorRef",
    "Exited",
    "Ok",
    "Outcome",
    "PartitionSupervisor",
    "PartitionSupervisorRef",
    "Restart",
    "Strategy",
    "Supervisor",
    "SupervisorRef",
    "TaskSupervisor",
    "TaskSupervisorRef",
    "partition_of",
    "run",
]
