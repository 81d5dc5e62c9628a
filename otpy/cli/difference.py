"""`otpy diff`: in what two saved programs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.programs.difference import diff
from otpy.programs.files import read

if TYPE_CHECKING:
    from pathlib import Path

    from otpy.cli.screen import Screen

__all__ = ["show_difference"]


def show_difference(screen: Screen, before: Path, after: Path) -> None:
    """Print in what two saved programs differ, and who made each.

    Args:
        screen: Where it goes.
        before: The file of a program.
        after: Another.
    """
    difference = diff(before, after)
    told: dict[str, Any] = {}
    for side, path in (("before", before), ("after", after)):
        content = read(path, verify=True)
        told[side] = {"file": str(path), "hash": content["hash"], "lineage": content.get("lineage")}
        screen.line(f"{side:6}  {path}  {content['hash']}{_made(content.get('lineage'))}")
    screen.line(str(difference))
    screen.result({"command": "diff", **told, "changes": difference.to_json()})


def _made(lineage: Any) -> str:
    if lineage is None:
        return ""
    said = {"from": lineage.get("parent"), "with data": lineage.get("data"), "seed": lineage.get("seed")}
    words = "".join(f", {name} {value}" for name, value in said.items() if value is not None)
    return f"  by {lineage['optimizer']} at {lineage['time']}{words}"
