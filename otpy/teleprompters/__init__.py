"""Optimizers: programs in, better programs out. Each is a search, run by a supervised process."""

from __future__ import annotations

from otpy.teleprompters.better_together import BetterTogether
from otpy.teleprompters.bootstrap_few_shot import BootstrapFewShot
from otpy.teleprompters.bootstrap_finetune import BootstrapFinetune
from otpy.teleprompters.choosing import Objective
from otpy.teleprompters.continual import Continual, Current, Feedback, Generation, Look, Next
from otpy.teleprompters.copro import COPRO, SignatureOptimizer
from otpy.teleprompters.ensemble import Ensemble
from otpy.teleprompters.gepa import GEPA
from otpy.teleprompters.grpo import GRPO
from otpy.teleprompters.human import HumanMetric
from otpy.teleprompters.infer_rules import InferRules
from otpy.teleprompters.judgements import Judgements
from otpy.teleprompters.knn_few_shot import KNNFewShot
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.mipro import MIPROv2
from otpy.teleprompters.optimization import Optimization
from otpy.teleprompters.optuna_search import BootstrapFewShotWithOptuna
from otpy.teleprompters.outcome import Outcome, outcome_of
from otpy.teleprompters.outcome_file import SavedOutcome, load_outcome
from otpy.teleprompters.random_search import BootstrapFewShotWithRandomSearch
from otpy.teleprompters.run_view import RunView
from otpy.teleprompters.simba import SIMBA
from otpy.teleprompters.status import Status
from otpy.teleprompters.teleprompter import Teleprompter

__all__ = [
    "COPRO",
    "GEPA",
    "GRPO",
    "SIMBA",
    "BetterTogether",
    "BootstrapFewShot",
    "BootstrapFewShotWithOptuna",
    "BootstrapFewShotWithRandomSearch",
    "BootstrapFinetune",
    "Continual",
    "Current",
    "Ensemble",
    "Feedback",
    "Generation",
    "HumanMetric",
    "InferRules",
    "Judgements",
    "KNNFewShot",
    "LabeledFewShot",
    "Look",
    "MIPROv2",
    "Next",
    "Objective",
    "Optimization",
    "Outcome",
    "RunView",
    "SavedOutcome",
    "SignatureOptimizer",
    "Status",
    "Teleprompter",
    "load_outcome",
    "outcome_of",
]
