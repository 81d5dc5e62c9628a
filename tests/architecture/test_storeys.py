"""The house keeps its own rules: who may import whom, what a room may be called, how big it may get."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "otpy"
ROOMS = sorted(path for path in PACKAGE.rglob("*.py"))
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]

# One line that must break each contract, and the room it is planted in.
VIOLATIONS = {
    "storeys: each imports only from those below": ("clock.py", "import otpy.actors"),
    "no rings between rooms": ("telemetry/planted_ring.py", "import otpy.telemetry.planted_ring_too"),
    "pykka lives in actors": ("lm/planted.py", "import pykka"),
    "pybreaker lives in clients/breaker.py": ("lm/planted.py", "import pybreaker"),
    "limits lives in clients/limiter_storage.py": ("lm/planted.py", "import limits"),
    "genai_prices lives in clients/prices.py": ("lm/planted.py", "import genai_prices"),
    "wreq and certifi live in clients/wire.py": ("programs/planted.py", "import wreq"),
    "httpx lives in clients/transport.py, its errors in clients/wire.py too": ("programs/planted.py", "import httpx"),
    "structlog lives in telemetry": ("lm/planted.py", "import structlog"),
    "the command line's libraries live in cli, the progress bar's in evaluate/progress.py": (
        "lm/planted.py",
        "import rich",
    ),
    "pyarrow lives in evaluate/arrow.py": ("lm/planted.py", "import pyarrow"),
    "matplotlib lives in evaluate/plot.py": ("lm/planted.py", "import matplotlib"),
    "docstring_parser lives in types/parameters.py": ("lm/planted.py", "import docstring_parser"),
    "mcp lives in integrations": ("lm/planted.py", "import mcp"),
    "what trains weights lives in training, in programs of their own": ("training/local.py", "import torch"),
    "pure rooms start no process and open no connection": ("lm/planted.py", "import threading"),
}


def lint_imports(directory: Path, *options: object) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", *map(str, options)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(directory), "NO_COLOR": "1"},
    )


def test_every_contract_between_rooms_holds():
    ran = lint_imports(ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in ran.stdout


def test_the_storeys_hold_for_the_imports_of_type_checkers_too(tmp_path):
    lines = (ROOT / "pyproject.toml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("exclude_type_checking_imports")]
    assert len(kept) == len(lines) - 1
    (tmp_path / "pyproject.toml").write_text("".join(kept))
    ran = lint_imports(ROOT, "--config", tmp_path / "pyproject.toml", "--contract", "storeys")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_contract_between_rooms_bites(tmp_path):
    assert VIOLATIONS.keys() == set(CONTRACTS), "plant a violation for every contract"
    shutil.copytree(PACKAGE, tmp_path / "otpy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room, line in VIOLATIONS.values():
        path = tmp_path / "otpy" / room
        path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    (tmp_path / "otpy/telemetry/planted_ring_too.py").write_text("import otpy.telemetry.planted_ring\n")

    ran = lint_imports(tmp_path)

    assert ran.returncode != 0
    verdicts = {name: word for name in CONTRACTS for word in ("KEPT", "BROKEN") if f"{name} {word}" in ran.stdout}
    assert verdicts == dict.fromkeys(CONTRACTS, "BROKEN"), ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["programs", "supervisors"])
def test_a_room_shown_in_the_yard_is_a_relative_link_into_the_house(name):
    link = ROOT / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"otpy/{name}"
    assert link.resolve() == (PACKAGE / name).resolve()
    assert link.is_dir()


def test_no_room_is_over_400_lines():
    lines = {room: sum(1 for line in room.read_text().splitlines() if line.strip()) for room in ROOMS}
    long = {str(room.relative_to(ROOT)): n for room, n in lines.items() if n > 400}
    assert long == {}, "a room this long is two rooms"


def test_no_room_is_named_for_nothing():
    vague = {"utils", "util", "helpers", "helper", "base", "core", "common", "misc"}
    named = [room for room in ROOMS if {room.stem, room.parent.name} & vague]
    assert named == [], "name a room for what it does"


def imported(room: Path) -> set[str]:
    """The names of the modules that a room imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(room.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def test_nothing_inside_imports_the_front_door():
    through_the_door = [room for room in ROOMS if room != PACKAGE / "__init__.py" and "otpy" in imported(room)]
    assert through_the_door == [], "import from the room: `from otpy.errors import SignatureError`"


def test_importing_the_front_door_loads_nothing_heavy():
    heavy = {"asyncio", "httpx", "limits", "pybreaker", "pydantic", "pykka", "rich", "sqlite3", "wreq"}
    heavy |= {"matplotlib", "pyarrow", "structlog", "typer", "uvloop", "xllamacpp"}
    code = "import json, sys, otpy; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(ran.stdout))
    assert "otpy" in loaded
    assert loaded.isdisjoint(heavy), sorted(loaded & heavy)
