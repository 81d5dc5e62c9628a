"""The weights of a BERT sentence encoder, from a `sentence-transformers` model's files to llama.cpp's format. Pure.

Nothing is computed: the numbers stay as they are, under the names that llama.cpp knows, so the result has one hash.
Source: llama.cpp, `docs` of the GGUF format version 3 and `convert_hf_to_gguf.py` for what a "bert" model is made of;
the safetensors format is its length in 8 bytes, that much JSON, and the numbers.
"""

from __future__ import annotations

import json
import re
import struct
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["gguf_of_bert"]

BLOCK: Final = 1 << 20
_ALIGNED: Final = 32
_F32: Final = 0
_MEAN: Final = 1
"""llama.cpp's number for vectors that are the mean of those of all tokens."""
_NORMAL, _CONTROL = 1, 3
_LONGEST_HEADER: Final = 1 << 20
_SPECIAL: Final = {
    "unknown_token_id": "[UNK]",
    "seperator_token_id": "[SEP]",  # as llama.cpp spells it
    "padding_token_id": "[PAD]",
    "cls_token_id": "[CLS]",
    "bos_token_id": "[CLS]",
    "mask_token_id": "[MASK]",
}
_NAMES: Final = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_LAYER: Final = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_UNUSED: Final = ("embeddings.position_ids", "pooler.")
"""What stands in the file and has no part in a sentence's vector."""


def gguf_of_bert(weights: IO[bytes], vocabulary: str, config: Mapping[str, Any], name: str) -> Iterator[bytes]:
    """Yield the file that llama.cpp reads, piece by piece.

    Args:
        weights: `model.safetensors`, of 32-bit floats.
        vocabulary: `vocab.txt`, a token a line.
        config: `config.json`.
        name: What the model is to be called.

    Raises:
        ValueError: If they are not such a model's.
    """
    (length,) = struct.unpack("<Q", _read(weights, 8))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes is not that of such a model")
    listed: dict[str, Any] = json.loads(_read(weights, length))
    listed.pop("__metadata__", None)
    tensors = sorted(listed.items(), key=lambda item: item[1]["data_offsets"])
    kept = [(_name_of(old), old) for old, _ in tensors if not old.startswith(_UNUSED)]
    fields = [*_shape(config, name), *_tokens(vocabulary.splitlines())]
    head = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(kept), len(fields)))
    for key, value in fields:
        head += _text(key) + value
    offset = 0
    for new, old in kept:
        shape, begin, end = _place(listed[old], old)
        head += _text(new) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), _F32, offset)
        offset += end - begin + _padding(end - begin)
    yield bytes(head) + bytes(_padding(len(head)))
    at = 0
    for old, entry in tensors:
        _, begin, end = _place(entry, old) if not old.startswith(_UNUSED) else ((), *entry["data_offsets"])
        if begin != at:
            raise ValueError(f"{old} begins at {begin}, and what is before it ends at {at}")
        for start in range(begin, end, BLOCK):
            block = _read(weights, min(BLOCK, end - start))
            if not old.startswith(_UNUSED):
                yield block
        if not old.startswith(_UNUSED) and _padding(end - begin):
            yield bytes(_padding(end - begin))
        at = end


def _shape(config: Mapping[str, Any], name: str) -> Iterator[tuple[str, bytes]]:
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ValueError(f"a {config.get('model_type')!r} model with {config.get('hidden_act')!r} is not supported")
    yield "general.architecture", _string("bert")
    yield "general.name", _string(name)
    yield "general.file_type", _uint(0)
    for key, field in (
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
    ):
        yield f"bert.{key}", _uint(config[field])
    yield "bert.attention.layer_norm_epsilon", struct.pack("<If", 6, config["layer_norm_eps"])
    yield "bert.attention.causal", struct.pack("<I?", 7, False)  # noqa: FBT003 - the value of a field
    yield "bert.pooling_type", _uint(_MEAN)


def _tokens(words: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name the tokens as llama.cpp does: beginnings of words are marked, their continuations are not."""
    marked = [
        word if word[:1] == "[" and word[-1:] == "]" else word[2:] if word[:2] == "##" else "\u2581" + word
        for word in words
    ]
    yield "tokenizer.ggml.model", _string("bert")
    yield "tokenizer.ggml.pre", _string("bert-bge")
    yield "tokenizer.ggml.token_type_count", _uint(2)
    yield "tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, len(marked)) + b"".join(map(_text, marked))
    kinds = [_CONTROL if word in _SPECIAL.values() else _NORMAL for word in words]
    yield "tokenizer.ggml.token_type", struct.pack(f"<IIQ{len(kinds)}i", 9, 5, len(kinds), *kinds)
    for key, word in _SPECIAL.items():
        yield f"tokenizer.ggml.{key}", _uint(words.index(word))


def _name_of(old: str) -> str:
    stem, _, kind = old.rpartition(".")
    layer = _LAYER.fullmatch(stem)
    prefix, stem = ("", stem) if layer is None else (f"blk.{layer[1]}.", layer[2])
    if stem not in _NAMES or kind not in {"weight", "bias"}:
        raise ValueError(f"{old} is no part of a BERT encoder")
    return f"{prefix}{_NAMES[stem]}.{kind}"


def _place(entry: Mapping[str, Any], name: str) -> tuple[list[int], int, int]:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    count = 1
    for size in shape:
        count *= size
    if entry["dtype"] != "F32" or end - begin != 4 * count:
        raise ValueError(f"{name} is not {shape} numbers of 32 bits")
    return shape, begin, end


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("the weights end too soon")
    return data


def _padding(count: int) -> int:
    return -count % _ALIGNED


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _string(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


def _uint(number: int) -> bytes:
    return struct.pack("<II", 4, number)
