"""The program that improves a local model by reward (GRPO), as an OS process of its own.

    python -m otpy.training.grpo FOLDER

The folder holds `plan.json` and `prompts.jsonl`. It writes JSON lines: `{"what": …, "step": …, "steps": …}` as it goes
on; `{"ask": n, "step": s, "completions": [{"row": …, "text": …, "cut": …}]}`, to be answered by a line
`{"ask": n, "rewards": […]}` on its standard input, where `null` leaves a completion out; and at the end
`{"adapter": path}`, or `{"error": why}` where another attempt would end the same. Every few steps all that going on
takes is kept in the folder; killed and started again it goes on from there, with the same numbers.

The one room that knows trl. Source: Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in
Open Language Models"; trl's `GRPOTrainer`.
"""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from otpy.errors import TeleprompterError
from otpy.training import lora
from otpy.training.folder import alone, done, finish, kept

__all__ = ["CHECKPOINTS", "CURVE", "GRPOPlan", "command", "main"]

CURVE: Final = "curve.json"
"""The file that gets the mean reward of each step."""
CHECKPOINTS: Final = "checkpoints"
WHOLE: Final = "whole"
"""The file that is made when a checkpoint is."""


@dataclass(frozen=True, slots=True)
class GRPOPlan:
    """What is to be done, as in `plan.json`.

    Args:
        base: The base model's name.
        weights: Its `.gguf` file.
        adapters: The folder that gets the adapter.
        rank: Of the adapter.
        alpha: Its weight is `alpha / rank`.
        learning_rate: The highest; it falls to 0.
        steps: Updates.
        examples: Prompts a step.
        rollouts: Completions a prompt, which are compared with each other.
        temperature: They are sampled at.
        max_tokens: They may have.
        beta: The weight of the divergence from the base model; 0 for none.
        seed: For the order, the sampling and the numbers to begin with.
        checkpoint_steps: Steps between two checkpoints.
    """

    base: str
    weights: str
    adapters: str
    rank: int
    alpha: float
    learning_rate: float
    steps: int
    examples: int
    rollouts: int
    temperature: float
    max_tokens: int
    beta: float
    seed: int
    checkpoint_steps: int = 5


def command(folder: Path) -> list[str]:
    """Return the command that trains what a folder says.

    Args:
        folder: The folder.
    """
    return [sys.executable, "-m", "otpy.training.grpo", str(folder)]


def main(argv: list[str] | None = None) -> None:
    """Train, and say so."""
    (folder,) = sys.argv[1:] if argv is None else argv
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no news
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # read when torch loads: threads that wait are to leave the cores
    try:
        _train(Path(folder), _Voice(out, sys.stdin))
    except EOFError:
        sys.exit("nobody answers any more")
    except Exception as error:  # noqa: BLE001 - whatever it is: another attempt would end the same
        words = str(error) if isinstance(error, TeleprompterError) else f"{type(error).__name__}: {error}"
        print(json.dumps({"error": words}), file=out, flush=True)


class _Voice:
    """Says what happens, and asks for rewards."""

    def __init__(self, out: IO[str], answers: IO[str]) -> None:
        self._out, self._answers, self._asked = out, answers, 0

    def say(self, **said: Any) -> None:
        print(json.dumps(said), file=self._out, flush=True)

    def rewards(self, step: int, completions: list[dict[str, Any]]) -> list[float | None]:
        self._asked += 1
        self.say(ask=self._asked, step=step, completions=completions)
        while line := self._answers.readline():
            answer = json.loads(line)
            if answer.get("ask") == self._asked:  # not one to a question of before
                rewards: list[float | None] = answer["rewards"]
                if len(rewards) != len(completions):
                    raise TeleprompterError(f"{len(rewards)} rewards came for {len(completions)} completions")
                return rewards
        raise EOFError


def _train(folder: Path, voice: _Voice) -> None:
    plan = GRPOPlan(**json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    voice.say(what="loading", step=0, steps=plan.steps)
    with alone(folder, lambda: voice.say(what="waiting for another run of the same", step=0, steps=plan.steps)):
        adapter = done(folder)  # by the run that was waited for
        if adapter is None:
            adapter = _learned(folder, plan, lines, voice)
            finish(folder, adapter)
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    voice.say(adapter=str(adapter))


def _learned(folder: Path, plan: GRPOPlan, lines: list[str], voice: _Voice) -> Path:
    import torch  # noqa: PLC0415 - seconds, and only where something is trained
    import transformers  # noqa: PLC0415 - the same
    import trl  # noqa: PLC0415 - the same

    library: Any = trl
    base: Any = transformers.TrainerCallback
    loaded = lora.load(plan.weights)
    longest = _longest(loaded, lines)
    if longest + plan.max_tokens > loaded.model.config.max_position_embeddings:
        raise TeleprompterError(
            f"a prompt has {longest} tokens, and with max_tokens={plan.max_tokens} that is more than the model reads"
        )
    model = lora.attach(loaded.model, rank=plan.rank, alpha=plan.alpha, seed=plan.seed)
    eos: int = loaded.tokenizer.eos_token_id

    def reward(completions: list[Any], completion_ids: list[list[int]], row: list[int], **rest: Any) -> list[Any]:
        found = [
            {"row": at, "text": turns[-1]["content"], "cut": eos not in ids}
            for at, turns, ids in zip(row, completions, completion_ids, strict=True)
        ]
        return voice.rewards(rest["trainer_state"].global_step + 1, found)

    class Telling(base):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            Path(args.output_dir, f"checkpoint-{state.global_step}", WHOLE).touch()  # a kill may leave half of one

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            names = {"loss": "loss", "reward": "reward", "reward_std": "spread", "grad_norm": "gradient", "kl": "kl"}
            figures = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in logs}
            if "reward" in figures:
                voice.say(what="training", step=state.global_step, steps=plan.steps, **figures)
                if not figures.get("gradient", 0.0) < float("inf"):
                    raise TeleprompterError(f"at step {state.global_step} there is no number to go on with: lower"
                                            " learning_rate")  # fmt: skip

    config = library.GRPOConfig(
        output_dir=str(folder / CHECKPOINTS),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.examples * plan.rollouts,
        num_generations=plan.rollouts,
        max_completion_length=plan.max_tokens,
        learning_rate=plan.learning_rate,
        beta=plan.beta,
        temperature=plan.temperature,
        seed=plan.seed,
        loss_type="grpo",
        save_steps=plan.checkpoint_steps,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [json.loads(line) for line in lines]
    datasets: Any = importlib.import_module("datasets")  # trl's own
    data = datasets.Dataset.from_list([{"row": row["row"], "prompt": row["messages"]} for row in rows])
    trainer = library.GRPOTrainer(
        model=model,
        processing_class=loaded.tokenizer,
        reward_funcs=reward,
        args=config,
        train_dataset=data,
        callbacks=[Telling()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=_latest(folder / CHECKPOINTS))
    curve = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]  # checkpoints keep it
    kept(folder / CURVE, json.dumps(curve))
    return lora.write_adapter(trainer.accelerator.unwrap_model(trainer.model), Path(plan.adapters), plan.base)


def _longest(loaded: lora.Loaded, lines: list[str]) -> int:
    def length(line: str) -> int:
        turns = json.loads(line)["messages"]
        text = loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    return max(map(length, lines))


def _latest(folder: Path) -> str | None:
    """Return the last whole checkpoint; one that a kill has left half-written is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        if (path / WHOLE).exists():
            return str(path)
        shutil.rmtree(path, ignore_errors=True)
    return None


if __name__ == "__main__":
    main()
