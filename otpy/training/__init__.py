"""Training: models that learn from records, here or at a provider; each is a supervised process."""

from __future__ import annotations

from otpy.training.local import LocalTrainer
from otpy.training.provider_job import ProviderTrainer
from otpy.training.records import Record, hash_of, record_of
from otpy.training.rewarded import RewardTrainer
from otpy.training.trainer import Memory, Progress, Trainer

__all__ = [
    "LocalTrainer",
    "Memory",
    "Progress",
    "ProviderTrainer",
    "Record",
    "RewardTrainer",
    "Trainer",
    "hash_of",
    "record_of",
]
