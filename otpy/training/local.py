"""`LocalTrainer`: a model of this machine learns, in a supervised OS process, and an adapter is what it has learned."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.clients import models
from otpy.config.local_models import adapters_dir
from otpy.errors import ModelNotAvailable, TeleprompterError
from otpy.training.folder import done, folder_of, kept
from otpy.training.program import conversation
from otpy.training.records import hash_of, lines_of
from otpy.training.sft import Plan, command
from otpy.training.trainer import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otpy.config.local_models import LocalModel
    from otpy.training.records import Record
    from otpy.training.trainer import Memory

__all__ = ["DEFAULTS", "LocalTrainer", "check_extra", "model_of"]

INSTALL: Final = "pip install 'otpy-framework[train]' (in a checkout: pip install -e '.[train]')"
DEFAULTS: Final[Mapping[str, Any]] = {
    "rank": 8,
    "alpha": 16.0,
    "learning_rate": 5e-4,
    "epochs": 2,
    "batch_size": 8,
    "max_length": 2_048,
    "seed": 0,
}
"""What a training is told, unless told otherwise."""
_SAYS_NOTHING_NEW: Final = frozenset({"weights", "adapters", "checkpoint_seconds"})


def check_extra(name: str) -> None:
    """Refuse to train without what that takes.

    Args:
        name: The model's name.

    Raises:
        ModelNotAvailable: If the extra `train` is not installed; the message says how.
    """
    missing = [room for room in ("torch", "transformers", "peft", "gguf") if importlib.util.find_spec(room) is None]
    if missing:
        raise ModelNotAvailable(f"training {name} needs the extra 'train' ({', '.join(missing)} missing): {INSTALL}")


def model_of(adapter: Path) -> str:
    """Return what clients are told the model of an adapter is.

    Args:
        adapter: The adapter's file.

    Example:
        >>> from pathlib import Path
        >>> from otpy.training.local import model_of
        >>> model_of(Path("smollm2-135m-0123456789ab.gguf"))
        'local/smollm2-135m+0123456789ab'
    """
    base, _, digits = adapter.stem.rpartition("-")
    return f"local/{base}+{digits}"


class LocalTrainer:
    """Trains a local model, with LoRA.

    Args:
        name: The model: its name, with `local/` before it or without.
        checkpoint_seconds: Seconds between two checkpoints.
        program: The command that trains what a folder says; another one for tests.

    Raises:
        ModelNotAvailable: If there is no such model.
        TeleprompterError: If it is one that makes vectors, or has learned something already.
    """

    def __init__(
        self, name: str, *, checkpoint_seconds: float = 20.0, program: Callable[[Path], Sequence[str]] | None = None
    ) -> None:
        """Know the model."""
        self.model: LocalModel = models.find(name)
        self._seconds, self._program = checkpoint_seconds, program
        if self.model.embeds:
            raise TeleprompterError(f"{name} makes vectors; a model that answers can be trained")
        if self.model.adapter:
            raise TeleprompterError(f"{name} has been trained already; train local/{self.model.name}, on all examples")

    async def train(
        self,
        records: Sequence[Record],
        *,
        kind: str,
        params: Mapping[str, Any],
        memory: Memory,
        told: Callable[[Progress], object],
    ) -> str:
        """Train, and return the new model, `"local/<name>+<hash>"`; as `Trainer.train`.

        What came of the same training before is used again, and one that was killed goes on.

        Args:
            records: What to learn.
            kind: `"sft"`.
            params: Some of `DEFAULTS`, with other values.
            memory: Keeps what came of it.
            told: Called with every step.

        Raises:
            TeleprompterError: If it cannot be done with these records and parameters.
            ModelNotAvailable: If the weights or the extra are missing.
        """
        if kind != "sft":
            raise TeleprompterError(f"kind={kind!r}; a local model is trained here by 'sft'")
        if not records:
            raise TeleprompterError("there are no records to learn from")
        unknown = [name for name in params if name not in DEFAULTS]
        if unknown:
            raise TeleprompterError(f"no parameter {unknown[0]!r} of training; there are {', '.join(DEFAULTS)}")
        base = self.model
        plan = Plan(
            base=base.name,
            weights=str(base.file),
            adapters=str(adapters_dir()),
            checkpoint_seconds=self._seconds,
            **{**DEFAULTS, **params},
        )
        facts = dataclasses.asdict(plan)
        decides = {name: value for name, value in facts.items() if name not in _SAYS_NOTHING_NEW}
        folder = folder_of({"sft": decides, "weights": base.weights_sha256, "records": hash_of(records)})
        known = memory.get(f"sft/{folder.name}")
        if isinstance(known, str) and models.installed(known):
            return known
        adapter = done(folder)
        if adapter is None:
            if self._program is None:
                check_extra(f"local/{base.name}")
                models.server_command(base.name, parallel=1)  # says what is missing
            try:
                await asyncio.to_thread(self._write, folder, json.dumps(facts, indent=1), records)
            except OSError as error:
                raise TeleprompterError(
                    f"{folder} cannot be written: {error.strerror or error}; OTPY_CACHE_DIR names another place"
                ) from error
            adapter = await self._trained((self._program or command)(folder), told)
        model = model_of(adapter)
        await memory.put(f"sft/{folder.name}", model)
        return model

    @staticmethod
    def _write(folder: Path, plan: str, records: Sequence[Record]) -> None:
        kept(folder / "records.jsonl", lines_of(records))
        kept(folder / "plan.json", plan)

    @staticmethod
    async def _trained(program: Sequence[str], told: Callable[[Progress], object]) -> Path:
        async with contextlib.aclosing(conversation(program)) as said:
            async for line in said:
                match line.data:
                    case {"adapter": str(adapter)}:
                        return Path(adapter)
                    case {"error": why}:
                        raise TeleprompterError(f"the training has failed: {why}")
                    case {"what": str(what), **rest}:
                        step, steps = rest.pop("step", 0), rest.pop("steps", None)
                        figures = {name: float(value) for name, value in rest.items()}
                        told(Progress(what, step, steps, figures))
                    case _:
                        pass
        raise TeleprompterError("the training has ended without a word of what came of it")
