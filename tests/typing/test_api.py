"""The public types are what `api.py` says they are, to a type checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_type_checker_agrees_with_every_assertion_of_api() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "tests/typing/api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
