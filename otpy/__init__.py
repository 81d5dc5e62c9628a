"""Erlang/OTP's supervision for Python, and language-model programs that run on it.

The front door: every public name, loaded when it is first used. `otpy.actors` and `otpy.supervisors` stand alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otpy.actors import (
        BRUTAL_KILL,
        INFINITY,
        KILL,
        KILLED,
        NOPROC,
        NORMAL,
        SHUTDOWN,
        Agent,
        Call,
        Caller,
        Cast,
        ChildSpec,
        Down,
        Exit,
        ExitMessage,
        GenServer,
        GenStateMachine,
        Groups,
        Ignore,
        Mailbox,
        Node,
        NoReply,
        Port,
        Ref,
        Registry,
        Reply,
        Restart,
        Shutdown,
        Stop,
        Task,
        Timeout,
        Watchdog,
        blocking,
        demonitor,
        link,
        monitor,
        named,
        self_ref,
        send_after,
        unlink,
        whereis,
    )
    from otpy.adapters import (
        ENGLISH,
        GERMAN,
        BAMLAdapter,
        ChatAdapter,
        JSONAdapter,
        TemplateAdapter,
        TwoStepAdapter,
        XMLAdapter,
    )
    from otpy.application import Application, start
    from otpy.application.looking import inspect
    from otpy.clients.labels import labels
    from otpy.clients.running import running
    from otpy.config import Settings
    from otpy.evaluate import (
        Comparison,
        Evaluate,
        EvaluationResult,
        Failed,
        Journal,
        Score,
        Scored,
        exact_match,
        f1,
        iter_dataset,
        leaks,
        load_dataset,
        load_result,
        sample,
        split,
    )
    from otpy.lm import LMRequest, LMResponse, Message, Usage
    from otpy.programs import (
        KNN,
        RAG,
        RLM,
        Assert,
        BatchFailed,
        BestOfN,
        ChainOfThought,
        CodeAct,
        Embedder,
        MultiChainComparison,
        Parallel,
        Predict,
        Program,
        ProgramOfThought,
        ReAct,
        Refine,
        Retrieve,
        Suggest,
        check,
        diff,
        load,
        load_dspy,
        load_program,
        majority,
        save,
        status,
        tracing,
        use_tools,
    )
    from otpy.programs.streaming import (
        FieldEnd,
        FieldsVoid,
        FieldText,
        Status,
        ThoughtText,
        ToolEnded,
        ToolStarted,
    )
    from otpy.retrieval import (
        BM25,
        Embeddings,
    )
    from otpy.signatures import Example, InputField, OutputField, Prediction, Signature
    from otpy.supervisors import (
        ONE_FOR_ALL,
        ONE_FOR_ONE,
        REST_FOR_ONE,
        SIMPLE_ONE_FOR_ONE,
        DynamicSupervisor,
        PartitionSupervisor,
        Supervisor,
        TaskSupervisor,
        run,
    )
    from otpy.teleprompters import (
        COPRO,
        GEPA,
        GRPO,
        SIMBA,
        BetterTogether,
        BootstrapFewShot,
        BootstrapFewShotWithOptuna,
        BootstrapFewShotWithRandomSearch,
        BootstrapFinetune,
        Continual,
        Ensemble,
        HumanMetric,
        InferRules,
        Judgements,
        KNNFewShot,
        LabeledFewShot,
        MIPROv2,
        Objective,
        SignatureOptimizer,
        load_outcome,
        outcome_of,
    )
    from otpy.types import (
        Audio,
        Citation,
        Citations,
        Code,
        Decision,
        Document,
        File,
        History,
        Image,
        Reasoning,
        Tool,
        ToolCall,
        ToolCalls,
        ToolResult,
        ToolResults,
        Type,
    )

__version__ = "0.1.0"

_ROOMS = {
    "otpy.actors": (
        "BRUTAL_KILL INFINITY KILL KILLED NOPROC NORMAL SHUTDOWN Call Caller Cast ChildSpec Down Exit ExitMessage"
        " GenServer Ignore Node NoReply Ref Reply Restart Shutdown Stop Task Timeout demonitor link monitor self_ref"
        " named send_after unlink whereis Agent GenStateMachine Groups Mailbox Port Registry Watchdog blocking"
    ),
    "otpy.adapters": ("ENGLISH GERMAN BAMLAdapter ChatAdapter JSONAdapter TemplateAdapter TwoStepAdapter XMLAdapter"),
    "otpy.application": "Application start",
    "otpy.application.looking": "inspect",
    "otpy.clients.labels": "labels",
    "otpy.clients.running": "running",
    "otpy.config": "Settings",
    "otpy.evaluate": (
        "Comparison Evaluate EvaluationResult Failed Journal Score Scored exact_match f1 iter_dataset"
        " leaks load_dataset load_result sample split"
    ),
    "otpy.lm": "LMRequest LMResponse Message Usage",
    "otpy.programs": (
        "KNN RAG RLM Assert BatchFailed BestOfN ChainOfThought CodeAct Embedder MultiChainComparison"
        " Parallel Predict Program ProgramOfThought ReAct Refine Retrieve Suggest check diff load"
        " load_dspy load_program majority save status tracing use_tools"
    ),
    "otpy.signatures": "Example InputField OutputField Prediction Signature",
    "otpy.supervisors": (
        "ONE_FOR_ALL ONE_FOR_ONE REST_FOR_ONE SIMPLE_ONE_FOR_ONE DynamicSupervisor PartitionSupervisor Supervisor"
        " TaskSupervisor run"
    ),
    "otpy.teleprompters": (
        "COPRO GEPA GRPO SIMBA BetterTogether BootstrapFewShot BootstrapFewShotWithOptuna"
        " BootstrapFewShotWithRandomSearch BootstrapFinetune Continual Ensemble HumanMetric InferRules Judgements"
        " KNNFewShot LabeledFewShot MIPROv2 Objective SignatureOptimizer load_outcome outcome_of"
    ),
    "otpy.types": (
        "Audio Citation Citations Code Decision Document File History Image Reasoning Tool ToolCall"
        " ToolCalls ToolResult ToolResults Type"
    ),
    "otpy.retrieval": ("BM25 Embeddings"),
    "otpy.programs.streaming": ("FieldEnd FieldText FieldsVoid Status ThoughtText ToolEnded ToolStarted"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = [  # noqa: PLE0604, RUF100 - literal for the checkers
    "BM25",
    "BRUTAL_KILL",
    "COPRO",
    "ENGLISH",
    "GEPA",
    "GERMAN",
    "GRPO",
    "INFINITY",
    "KILL",
    "KILLED",
    "KNN",
    "NOPROC",
    "NORMAL",
    "ONE_FOR_ALL",
    "ONE_FOR_ONE",
    "RAG",
    "REST_FOR_ONE",
    "RLM",
    "SHUTDOWN",
    "SIMBA",
    "SIMPLE_ONE_FOR_ONE",
    "Agent",
    "Application",
    "Assert",
    "Audio",
    "BAMLAdapter",
    "BatchFailed",
    "BestOfN",
    "BetterTogether",
    "BootstrapFewShot",
    "BootstrapFewShotWithOptuna",
    "BootstrapFewShotWithRandomSearch",
    "BootstrapFinetune",
    "Call",
    "Caller",
    "Cast",
    "ChainOfThought",
    "ChatAdapter",
    "ChildSpec",
    "Citation",
    "Citations",
    "Code",
    "CodeAct",
    "Comparison",
    "Continual",
    "Decision",
    "Document",
    "Down",
    "DynamicSupervisor",
    "Embedder",
    "Embeddings",
    "Ensemble",
    "Evaluate",
    "EvaluationResult",
    "Example",
    "Exit",
    "ExitMessage",
    "Failed",
    "FieldEnd",
    "FieldText",
    "FieldsVoid",
    "File",
    "GenServer",
    "GenStateMachine",
    "Groups",
    "History",
    "HumanMetric",
    "Ignore",
    "Image",
    "InferRules",
    "InputField",
    "JSONAdapter",
    "Journal",
    "Judgements",
    "KNNFewShot",
    "LMRequest",
    "LMResponse",
    "LabeledFewShot",
    "MIPROv2",
    "Mailbox",
    "Message",
    "MultiChainComparison",
    "NoReply",
    "Node",
    "Objective",
    "OutputField",
    "Parallel",
    "PartitionSupervisor",
    "Port",
    "Predict",
    "Prediction",
    "Program",
    "ProgramOfThought",
    "ReAct",
    "Reasoning",
    "Ref",
    "Refine",
    "Registry",
    "Reply",
    "Restart",
    "Retrieve",
    "Score",
    "Scored",
    "Settings",
    "Shutdown",
    "Signature",
    "SignatureOptimizer",
    "Status",
    "Stop",
    "Suggest",
    "Supervisor",
    "Task",
    "TaskSupervisor",
    "TemplateAdapter",
    "ThoughtText",
    "Timeout",
    "Tool",
    "ToolCall",
    "ToolCalls",
    "ToolEnded",
    "ToolResult",
    "ToolResults",
    "ToolStarted",
    "TwoStepAdapter",
    "Type",
    "Usage",
    "Watchdog",
    "XMLAdapter",
    "blocking",
    "check",
    "demonitor",
    "diff",
    "exact_match",
    "f1",
    "inspect",
    "iter_dataset",
    "labels",
    "leaks",
    "link",
    "load",
    "load_dataset",
    "load_dspy",
    "load_outcome",
    "load_program",
    "load_result",
    "majority",
    "monitor",
    "named",
    "outcome_of",
    "run",
    "running",
    "sample",
    "save",
    "self_ref",
    "send_after",
    "split",
    "start",
    "status",
    "tracing",
    "unlink",
    "use_tools",
    "whereis",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room at its first use."""
    room = _ROOM_OF.get(name)
    if room is None:
        from otpy.signposts import signpost  # noqa: PLC0415 - only for names that are not there

        raise AttributeError(f"module 'otpy' has no attribute {name!r}{signpost(name)}")
    value = getattr(importlib.import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*__all__, "__all__", "__version__"})
