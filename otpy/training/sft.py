"""The program that teaches a local model answers by heart (supervised fine-tuning), as an OS process of its own.

    python -m otpy.training.sft FOLDER

The folder holds `plan.json` and `records.jsonl`. It writes JSON lines: `{"what": …, "step": …, "steps": …, "loss": …}`
as it goes on, and at the end `{"adapter": path}`, or `{"error": why}` where another attempt would end the same.
What it has learned is in `checkpoint.safetensors` every now and then; killed and started again it goes on from there,
and ends with the same numbers as if nothing had happened.

Only the answers are learned, not the questions; each batch's common beginning is computed once. AdamW: Loshchilov and
Hutter 2019, "Decoupled Weight Decay Regularization".
"""

# The libraries of the extra `train` are not where the types are checked.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from otpy.errors import TeleprompterError
from otpy.training import lora
from otpy.training.folder import CHECKPOINT, alone, done, finish
from otpy.training.records import record_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otpy.training.lora import Tokens

__all__ = ["Plan", "command", "loss_of", "main"]

AT_ONCE: Final = 512
"""Tokens that are computed together, besides the common ones; a batch of more is computed in parts: each sees all of a
part, so that parts of twice the size take four times as long."""
WARM_UP: Final = 0.05
"""Share of the steps in which the learning rate rises; then it falls to 0."""
CLIP: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, as in `plan.json`.

    Args:
        base: The base model's name.
        weights: Its `.gguf` file.
        adapters: The folder that gets the adapter.
        rank: Of the adapter.
        alpha: Its weight is `alpha / rank`.
        learning_rate: The highest.
        epochs: How often every record is learned.
        batch_size: Records a step.
        max_length: Tokens that a record may have.
        seed: For the order, and the numbers to begin with.
        checkpoint_seconds: Seconds between two checkpoints; 0 for one after every step.
    """

    base: str
    weights: str
    adapters: str
    rank: int
    alpha: float
    learning_rate: float
    epochs: int
    batch_size: int
    max_length: int
    seed: int
    checkpoint_seconds: float = 20.0


def command(folder: Path) -> list[str]:
    """Return the command that trains what a folder says.

    Args:
        folder: The folder.
    """
    return [sys.executable, "-m", "otpy.training.sft", str(folder)]


def main(argv: list[str] | None = None) -> None:
    """Train, and say so."""
    (given,) = sys.argv[1:] if argv is None else argv
    folder = Path(given)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no news
    # Threads that spin while they wait for each other keep the cores from those they wait for.
    os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", TOKENIZERS_PARALLELISM="false")
    try:
        with alone(folder, lambda: _say(out, what="waiting for another training of the same")):
            adapter = done(folder)
            if adapter is None:
                adapter = _train(folder, out)
                finish(folder, adapter)
        _say(out, adapter=str(adapter))
    except Exception as error:  # noqa: BLE001 - whatever it is: another attempt would end the same
        _say(out, error=str(error) if isinstance(error, TeleprompterError) else f"{type(error).__name__}: {error}")


def _say(out: IO[str], **said: Any) -> None:
    print(json.dumps(said), file=out, flush=True)


def _train(folder: Path, out: IO[str]) -> Path:
    import torch  # noqa: PLC0415 - seconds, and only where something is trained

    plan = Plan(**json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    steps = plan.epochs * -(-len(lines) // plan.batch_size)
    _say(out, what="loading", step=0, steps=steps)
    loaded = lora.load(plan.weights)
    records = [lora.encode(loaded.tokenizer, record_of(line)) for line in lines]
    longest = max(len(prompt) + len(completion) for prompt, completion in records)
    if longest > plan.max_length:
        raise TeleprompterError(
            f"a record has {longest} tokens, more than max_length={plan.max_length}; allow more, which takes more"
            f" memory and time, or leave long examples out"
        )
    model = lora.attach(loaded.model, rank=plan.rank, alpha=plan.alpha, seed=plan.seed)
    model.train()
    learned = lora.state_of(model)
    optimizer = torch.optim.AdamW(learned.values(), lr=plan.learning_rate, weight_decay=0.0)
    checkpoint = folder / CHECKPOINT
    before = _restored(checkpoint, learned, optimizer)
    kept = time.monotonic()
    for step, batch in enumerate(_batches(plan, records), 1):
        if step <= before:
            continue
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _share(step, steps)
        optimizer.zero_grad()
        loss = _learn(model, batch)
        norm = float(torch.nn.utils.clip_grad_norm_(learned.values(), CLIP))
        if not norm < float("inf"):
            raise TeleprompterError(f"at step {step} the loss is {loss}, no number to go on with: lower learning_rate")
        optimizer.step()
        if time.monotonic() - kept >= plan.checkpoint_seconds:
            _keep(checkpoint, learned, optimizer, step)
            kept = time.monotonic()
        _say(out, what="training", step=step, steps=steps, loss=round(loss, 6))
    return lora.write_adapter(model, Path(plan.adapters), plan.base)


def _share(step: int, steps: int) -> float:
    """What share of the highest learning rate a step gets."""
    rising = max(1, round(WARM_UP * steps))
    return step / rising if step < rising else (steps - step + 1) / (steps - rising + 1)


def _batches(plan: Plan, records: Sequence[Tokens]) -> Iterator[list[Tokens]]:
    for epoch in range(plan.epochs):
        order = list(range(len(records)))
        random.Random(f"{plan.seed}/{epoch}").shuffle(order)  # noqa: S311 - a seeded order, no secret
        for at in range(0, len(order), plan.batch_size):
            yield [records[place] for place in order[at : at + plan.batch_size]]


def _learn(model: Any, batch: list[Tokens]) -> float:
    """Compute a batch's mean loss a token, and its gradients."""
    tokens = sum(len(completion) for _, completion in batch)
    common = _common([prompt for prompt, _ in batch])
    total = 0.0
    part: list[Tokens] = []
    size = 0
    for at, record in enumerate(batch):
        part.append(record)
        size += len(record.prompt) - common + len(record.completion)
        if at + 1 == len(batch) or size >= AT_ONCE:
            loss = loss_of(model, part) / tokens
            loss.backward()
            total += float(loss.detach())
            part, size = [], 0
    return total


def loss_of(model: Any, records: Sequence[Tokens]) -> Any:
    """Return the sum of the answers' losses, a token each, as a tensor.

    All records are one sequence: what the prompts have in common, then what is each record's own, which sees itself and
    the common part only. So the common part, most of a prompt, is computed once.

    Args:
        model: What `attach` returned.
        records: The records.
    """
    import torch  # noqa: PLC0415 - as above

    common = _common([prompt[:-1] for prompt, _ in records])
    ids = list(records[0].prompt[:common])
    places, owners = list(range(common)), [-1] * common
    asked: list[int] = []  # where an answer's token is foretold
    answers: list[int] = []
    for owner, (prompt, completion) in enumerate(records):
        own = [*prompt[common:], *completion[:-1]]
        first = len(ids) + len(prompt) - common - 1
        asked += range(first, first + len(completion))
        answers += completion
        ids += own
        places += range(common, common + len(own))
        owners += [owner] * len(own)
    whose = torch.tensor(owners)
    seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    seen &= (whose[:, None] == whose[None, :]) | (whose[None, :] == -1)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    inner = model.get_base_model()
    hidden = inner.model(
        input_ids=torch.tensor([ids]),
        attention_mask=mask[None, None],
        position_ids=torch.tensor([places]),
        use_cache=False,
    ).last_hidden_state[0, torch.tensor(asked)]
    return torch.nn.functional.cross_entropy(inner.lm_head(hidden), torch.tensor(answers), reduction="sum")


def _common(prompts: Sequence[list[int]]) -> int:
    """How many tokens all begin with."""
    first, last = min(prompts), max(prompts)
    shared = zip(first, last, strict=False)
    return next((at for at, (one, other) in enumerate(shared) if one != other), min(len(first), len(last)))


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _keep(file: Path, learned: dict[str, Any], optimizer: Any, step: int) -> None:
    """Write all that going on takes; a file half-written never has the name."""
    from safetensors.torch import save_file  # noqa: PLC0415 - as above

    tensors: dict[str, Any] = {}
    for name, tensor in learned.items():
        state = optimizer.state[tensor]
        tensors |= {f"{name}|{kind}": state[kind] for kind in ("exp_avg", "exp_avg_sq")} | {name: tensor.detach()}
    part = file.with_suffix(".part")
    save_file(tensors, part, metadata={"step": str(step)})
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(file)


def _restored(file: Path, learned: dict[str, Any], optimizer: Any) -> int:
    """Take up what was kept, and return how many steps that is."""
    import torch  # noqa: PLC0415 - as above
    from safetensors import safe_open  # noqa: PLC0415 - as above

    if not file.exists():
        return 0
    kept: Any
    with safe_open(file, "pt") as kept:
        step = int(kept.metadata()["step"])
        for name, tensor in learned.items():
            tensor.data.copy_(kept.get_tensor(name))
            optimizer.state[tensor] = {
                "step": torch.tensor(float(step)),
                **{kind: kept.get_tensor(f"{name}|{kind}") for kind in ("exp_avg", "exp_avg_sq")},
            }
    return step


if __name__ == "__main__":
    main()
