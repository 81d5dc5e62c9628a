"""`RewardTrainer`: a local model learns what is rewarded, in a supervised OS process that asks for rewards."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.clients import models
from otpy.config.local_models import adapters_dir
from otpy.errors import ModelNotAvailable, TeleprompterError
from otpy.training.folder import done, folder_of, kept
from otpy.training.grpo import CURVE, GRPOPlan, command
from otpy.training.local import INSTALL, check_extra, model_of
from otpy.training.program import conversation
from otpy.training.trainer import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from otpy.config.local_models import LocalModel
    from otpy.training.trainer import Memory

__all__ = ["Completion", "Improved", "Prompt", "RewardTrainer"]

_SAYS_NOTHING_NEW: Final = frozenset({"weights", "adapters", "checkpoint_steps"})
_RUN: Final = "grpo/run"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is put to the model.

    Args:
        row: The position of the example it belongs to.
        messages: The conversation, as JSON data.
    """

    row: int
    messages: tuple[Mapping[str, str], ...]

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({"row": self.row, "messages": list(map(dict, self.messages))}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model has written.

    Args:
        row: The position of the example it belongs to.
        text: What it has written.
        cut: Whether it is as long as it may be, and not whole.
    """

    row: int
    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Improved:
    """What came of it.

    Args:
        model: The model, as clients are told it.
        curve: The mean reward of each step.
    """

    model: str
    curve: tuple[float, ...]


class RewardTrainer:
    """Improves a local model by reward, with LoRA.

    Args:
        name: The model: its name, with `local/` before it or without.
        program: The command that trains what a folder says; another one for tests.

    Raises:
        ModelNotAvailable: If there is no such model.
        TeleprompterError: If it is one that makes vectors, or has learned something already.
    """

    def __init__(self, name: str, *, program: Callable[[Path], Sequence[str]] | None = None) -> None:
        """Know the model."""
        self.model: LocalModel = models.find(name)
        self._program = program
        if self.model.embeds:
            raise TeleprompterError(f"{name} makes vectors; a model that answers can be trained")
        if self.model.adapter:
            raise TeleprompterError(f"{name} has been trained already; a model without an adapter can be trained here")

    def check(self) -> None:
        """Refuse to begin without what it takes.

        Raises:
            ModelNotAvailable: If the weights or the extra `train` are missing; the message says how to get them.
        """
        if self._program is None:
            check_extra(f"local/{self.model.name}")
            missing = [room for room in ("trl", "datasets") if importlib.util.find_spec(room) is None]
            if missing:
                raise ModelNotAvailable(f"GRPO needs the extra 'train' ({', '.join(missing)} missing): {INSTALL}")
            models.server_command(self.model.name, parallel=1)  # says what is missing

    async def train(  # noqa: PLR0913 - keyword-only facts
        self,
        prompts: Sequence[Prompt],
        reward: Callable[[Sequence[Completion]], Awaitable[Sequence[float | None]]],
        *,
        judged_by: Mapping[str, Any],
        params: Mapping[str, Any],
        memory: Memory,
        told: Callable[[Progress], object],
    ) -> Improved:
        """Train, and return the new model.

        What came of the same training of the same run is used again, and one that was killed goes on from its last
        checkpoint; completions that were written behind it are written, and judged, again. Another run trains anew: who
        judges is known by name only, and may judge otherwise by then.

        Args:
            prompts: What is put to the model.
            reward: Judges what it writes, in order; `None` leaves a completion out.
            judged_by: What is known of who judges, as JSON data.
            params: The fields of `GRPOPlan` that are the caller's to say.
            memory: Keeps what came of it.
            told: Called with every step.

        Raises:
            TeleprompterError: If it cannot be done with these prompts and parameters.
            ModelNotAvailable: If the weights or the extra are missing.
            Exception: Whatever `reward` raises.
        """
        base = self.model
        plan = GRPOPlan(base=base.name, weights=str(base.file), adapters=str(adapters_dir()), **params)
        facts = dataclasses.asdict(plan)
        decides = {name: value for name, value in facts.items() if name not in _SAYS_NOTHING_NEW}
        lines = "".join(f"{prompt.line()}\n" for prompt in prompts)
        run: str | None = memory.get(_RUN)
        if run is None:
            await memory.put(_RUN, run := secrets.token_hex(8))
        judges = {"judged_by": dict(judged_by), "weights": base.weights_sha256, "run": run}
        folder = folder_of({"grpo": decides, "prompts": lines, **judges})
        known = memory.get(f"grpo/{folder.name}")
        if known is not None and models.installed(known["model"]):
            return Improved(known["model"], tuple(known["curve"]))
        adapter = done(folder)
        if adapter is None:
            self.check()
            try:
                await asyncio.to_thread(kept, folder / "prompts.jsonl", lines)
                await asyncio.to_thread(kept, folder / "plan.json", json.dumps(facts, indent=1))
            except OSError as error:
                raise TeleprompterError(
                    f"{folder} cannot be written: {error.strerror or error}; OTPY_CACHE_DIR names another place"
                ) from error
            adapter = await _trained((self._program or command)(folder), reward, told)
        improved = Improved(model_of(adapter), tuple(await asyncio.to_thread(_curve, folder)))
        await memory.put(f"grpo/{folder.name}", {"model": improved.model, "curve": list(improved.curve)})
        return improved


async def _trained(
    program: Sequence[str],
    reward: Callable[[Sequence[Completion]], Awaitable[Sequence[float | None]]],
    told: Callable[[Progress], object],
) -> Path:
    async with contextlib.aclosing(conversation(program)) as said:
        async for line in said:
            match line.data:
                case {"adapter": str(adapter)}:
                    return Path(adapter)
                case {"error": why}:
                    raise TeleprompterError(f"the training has failed: {why}")
                case {"ask": number, "completions": found}:
                    several: list[Any] = found
                    written = [Completion(one["row"], one["text"], one["cut"]) for one in several]
                    await line.answer({"ask": number, "rewards": list(await reward(written))})
                case {"what": str(what), **rest}:
                    step, steps = rest.pop("step", 0), rest.pop("steps", None)
                    told(Progress(what, step, steps, {name: float(value) for name, value in rest.items()}))
                case _:
                    pass
    raise TeleprompterError("the training has ended without a word of what came of it")


def _curve(folder: Path) -> list[float]:
    try:
        curve: list[float] = json.loads((folder / CURVE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TeleprompterError(f"{folder / CURVE} is damaged: {error}; remove the folder to train again") from error
    return curve
