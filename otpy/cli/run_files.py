"""`otpy runs diff` and `export`: candidates of optimizations compared, and written to files."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otpy.cli.runs import found_run, named
from otpy.cli.targets import refused, writable
from otpy.programs.difference import diff

if TYPE_CHECKING:
    from otpy.cli.screen import Screen

__all__ = ["diff_runs", "export_run"]


def diff_runs(screen: Screen, run: str, one: str, other: str | None) -> None:
    """Show in what two candidates of a run differ, or what two runs ended in.

    Args:
        screen: Where it is shown.
        run: Which run.
        one: A candidate of it; or another run, if there is no `other`.
        other: Another candidate.
    """
    first = found_run(run)
    second = first if other is not None else found_run(one)
    before, after = (first.named(one), first.named(other)) if other is not None else (first.named(), second.named())
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory, name) for name in ("before.json", "after.json")]
        for view, trial, path in ((first, before, paths[0]), (second, after, paths[1])):
            view.export(trial, path)
        difference = diff(*paths)
    told: dict[str, Any] = {}
    for side, view, trial in (("before", first, before), ("after", second, after)):
        screen.line(f"{side:6}  {view.path}  {named(view, trial)}")
        told[side] = {"run": str(view.path), "candidate": trial.name, "program": trial.program}
    screen.line(str(difference))
    screen.result({"command": "runs diff", **told, "changes": difference.to_json()})


def export_run(screen: Screen, run: str, out: Path, *, candidate: str | None, form: str) -> None:
    """Write a candidate's program to a file, or the scores of all of them.

    Args:
        screen: Where it is said.
        run: Which run.
        out: The file; an older one is replaced.
        candidate: Whose program; by default the one it ended in, or the best so far.
        form: `"program"`, `"jsonl"` or `"csv"`.

    Raises:
        typer.BadParameter: If the file cannot be written.
        TeleprompterError: If there is no such candidate.
    """
    writable(out, "--out")
    view = found_run(run)
    told: dict[str, Any] = {"command": "runs export", "run": str(view.path), "out": str(out), "format": form}
    if form == "program":
        trial = view.named(candidate)
        view.export(trial, out)
        screen.line(f"saved {out}: {named(view, trial)}")
        told |= {"candidate": trial.name, "program": trial.program}
    else:
        if candidate is not None:
            raise refused("--candidate", f"--format {form} writes the scores of all of them; leave it out")
        rows = list(view.rows())
        _write(out, _csv(rows) if form == "csv" else "".join(json.dumps(row) + "\n" for row in rows))
        screen.line(f"saved {out}: {len(rows)} scores of {len(view.candidates)} candidates")
        told["rows"] = len(rows)
    screen.result(told)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["candidate", "program", "row", "score"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
