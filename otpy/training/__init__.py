"""Training: models that learn from records, here or at a provider; each is a supervised process."""

from __future__ import annotations

from otpy.training.records import Record, hash_of, record_of
from otpy.training.trainer import Memory, Progress, Trainer

__all__ = ["Memory", "Progress", "Record", "Trainer", "hash_of", "record_of"]
