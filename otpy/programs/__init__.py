"""Programs: stateless values that ask client processes."""

from __future__ import annotations

from otpy.programs.aggregation import majority
from otpy.programs.best_of_n import BestOfN
from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.checking import Checked, Finding, check
from otpy.programs.code_act import CodeAct
from otpy.programs.constraints import Assert, Constraint, Suggest
from otpy.programs.difference import Difference, diff
from otpy.programs.dspy_state import DSPyStateWarning
from otpy.programs.embedder import Embedder
from otpy.programs.knn import KNN
from otpy.programs.lineage import Lineage, lineage_of
from otpy.programs.multi_chain_comparison import MultiChainComparison
from otpy.programs.parallel import BatchFailed, CallEnded, Parallel
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.programs.program_of_thought import ProgramOfThought
from otpy.programs.react import ReAct
from otpy.programs.refine import Refine
from otpy.programs.retrieve import RAG, Retrieve
from otpy.programs.rlm import RLM
from otpy.programs.saving import load, load_dspy, load_file, load_program, save
from otpy.programs.streaming import status
from otpy.programs.together import Together
from otpy.programs.tool_use import use_tools
from otpy.programs.trace import Trace, TraceEntry, tracing

__all__ = [
    "KNN",
    "RAG",
    "RLM",
    "Assert",
    "BatchFailed",
    "BestOfN",
    "CallEnded",
    "ChainOfThought",
    "Checked",
    "CodeAct",
    "Constraint",
    "DSPyStateWarning",
    "Difference",
    "Embedder",
    "Finding",
    "Lineage",
    "MultiChainComparison",
    "Parallel",
    "Predict",
    "Program",
    "ProgramOfThought",
    "ReAct",
    "Refine",
    "Retrieve",
    "Suggest",
    "Together",
    "Trace",
    "TraceEntry",
    "check",
    "diff",
    "lineage_of",
    "load",
    "load_dspy",
    "load_file",
    "load_program",
    "majority",
    "save",
    "status",
    "tracing",
    "use_tools",
]
