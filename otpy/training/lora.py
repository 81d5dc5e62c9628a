"""A small model's weights, with an adapter of low rank that learns: loaded from llama.cpp's file, and written for it.

The one room that knows how such a model is made. It needs the extra `train`, and runs in a process of its own.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models"; the layout of the file is that of
llama.cpp, whose rows of queries and keys are in another order than those of transformers.
"""

# The libraries of the extra `train` are not where the types are checked.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.training.records import Record

__all__ = ["ALL", "Loaded", "Tokens", "attach", "encode", "load", "state_of", "write_adapter"]

ALL: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers that an adapter may stand beside: those of attention, then those of the feed-forward part."""
_GGUF: Final = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_TENSOR: Final = re.compile(r"\.layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])\.")


class Loaded(NamedTuple):
    """A model that can be trained, and what makes tokens of its texts."""

    model: Any
    tokenizer: Any


class Tokens(NamedTuple):
    """A record as the model reads it: the prompt's tokens, then those to be learned."""

    prompt: list[int]
    completion: list[int]


def load(weights: str | os.PathLike[str]) -> Loaded:
    """Load the weights of a local model, as numbers of 32 bits.

    Args:
        weights: The `.gguf` file.

    Raises:
        TeleprompterError: If the file's model is of a kind whose adapters are not known here.
    """
    import torch  # noqa: PLC0415 - seconds, and only where something is trained
    import transformers  # noqa: PLC0415

    library: Any = transformers
    library.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    file = Path(weights)
    tokenizer = library.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = library.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    if model.config.model_type != "llama":
        raise TeleprompterError(f"{file.name} is a {model.config.model_type!r} model; those of 'llama' can be trained")
    for name in ("hf_quantizer", "quantization_method"):  # its numbers are plain ones now
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Loaded(model, tokenizer)


def attach(model: Any, *, rank: int, alpha: float, seed: int, layers: tuple[str, ...] = ALL) -> Any:
    """Return the model with an adapter that learns, and nothing else that does.

    Args:
        model: The model.
        rank: Of the adapter.
        alpha: Its weight is `alpha / rank`.
        seed: For the numbers it begins with; it changes no answer before it has learned.
        layers: Beside which layers it stands, of `ALL`.
    """
    import peft  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415

    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(layers), task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config)


def state_of(model: Any) -> dict[str, Any]:
    """Return what the adapter has learned: its tensors by name; the same objects, to be read or copied into."""
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def encode(tokenizer: Any, record: Record) -> Tokens:
    """Return a record's tokens, as llama.cpp would read the messages, and write the answer and its end.

    Args:
        tokenizer: The model's.
        record: The record.
    """
    text = tokenizer.apply_chat_template(record.turns, tokenize=False, add_generation_prompt=True)
    prompt: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer: list[int] = tokenizer(record.completion, add_special_tokens=False)["input_ids"]
    return Tokens(prompt, [*answer, tokenizer.eos_token_id])


def write_adapter(model: Any, folder: Path, base: str, *, about: Mapping[str, str] | None = None) -> Path:
    """Write the adapter for llama.cpp, and return the file: `<base>-<the first 12 digits of its hash>.gguf`.

    Args:
        model: What `attach` returned.
        folder: Where to; made if it is not there.
        base: The base model's name.
        about: More to keep in the file, by name.

    Raises:
        OSError: If it cannot be written; nothing half-written has the name then.
    """
    import gguf  # noqa: PLC0415 - as above

    config = model.config
    plan = model.peft_config["default"]
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{base}-{os.getpid()}.part"
    try:
        writer = gguf.GGUFWriter(beside, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(plan.lora_alpha))
        writer.add_name(base)
        for name, value in (about or {}).items():
            writer.add_string(f"otpy.{name}", value)
        for name, tensor in state_of(model).items():
            found = _TENSOR.search(name)
            assert found is not None, name
            layer, kind, half = found.groups()
            numbers = tensor.detach().cpu().float().numpy()
            if half == "B" and kind in {"q_proj", "k_proj"}:
                heads = config.num_attention_heads if kind == "q_proj" else config.num_key_value_heads
                rows, columns = numbers.shape
                numbers = numbers.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
            writer.add_tensor(f"blk.{layer}.{_GGUF[kind]}.weight.lora_{half.lower()}", numbers.copy(order="C"))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with beside.open("rb") as written:
            os.fsync(written.fileno())
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        return beside.replace(folder / f"{base}-{digest[:12]}.gguf")
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
