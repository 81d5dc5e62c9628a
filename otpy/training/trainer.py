"""What every trainer is: records in, the name of a model that has learned them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otpy.training.records import Record

__all__ = ["Memory", "Progress", "Trainer"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Args:
        what: What is done now, in a word or two: `"loading"`, `"training"`, `"queued"`.
        step: Steps done.
        steps: Steps in all; `None` if that is not known.
        figures: What was measured, such as `{"loss": 0.3}`.
    """

    what: str
    step: int = 0
    steps: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict[str, float])


class Memory(Protocol):
    """Facts that outlive the process: what was begun elsewhere, and is not to be begun twice."""

    def get(self, name: str) -> Any:
        """Return what was put, as JSON data; `None` if nothing was."""
        ...

    async def put(self, name: str, value: Any) -> None:
        """Keep a fact; when this returns, it is kept."""
        ...


class Trainer(Protocol):
    """Makes a model that has learned some records: on this machine, or at a provider."""

    async def train(
        self,
        records: Sequence[Record],
        *,
        kind: str,
        params: Mapping[str, Any],
        memory: Memory,
        told: Callable[[Progress], object],
    ) -> str:
        """Train, and return the new model, as clients are told it: `"provider/model"`.

        Called again after a kill, with the same records and parameters and the memory of before, it goes on from where
        it was and returns the same model. Cancelling it ends the training, here and at the provider.

        Args:
            records: What to learn, in order.
            kind: How: `"sft"` for learning the answers by heart.
            params: What the kind of training is told, as JSON data.
            memory: Facts that outlive the process.
            told: Called with how far it is.

        Raises:
            TeleprompterError: If it has failed for good.
            ClientError: If the provider cannot be asked.
            ModelNotAvailable: If the model cannot be trained here; the message says what is missing.
        """
        ...
