"""`otpy models`: which models run on this machine, and where their weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from otpy.clients import models

if TYPE_CHECKING:
    from pathlib import Path

    from otpy.cli.screen import Screen

__all__ = ["pull", "pulled", "remove", "show_list", "show_path"]


def show_list(screen: Screen) -> None:
    """Print a line for every model that can run here."""
    rows = [
        {
            "name": name,
            "megabytes": round(model.size / 1e6),
            "licence": model.licence,
            "context": model.context_length,
            "path": str(models.path_of(name)) if models.installed(name) else None,
        }
        for name, model in models.MODELS.items()
    ]
    screen.table(
        ["name", "MB", "licence", "context", "weights"],
        [[*list(row.values())[:-1], row["path"] or f"not here: otpy models pull {row['name']}"] for row in rows],
    )
    screen.result({"command": "models list", "models": rows})


def pulled(screen: Screen, name: str) -> Path:
    """Return the path of a model's weights, fetching them with a progress bar where they are missing.

    Args:
        screen: Knows whether there is a terminal to draw on.
        name: The model's name.

    Raises:
        ModelNotAvailable: If they can't be fetched, and what to do.
    """
    if models.installed(name):
        return models.path_of(name)
    columns = (TextColumn(f"fetching {name}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # On stderr, and nothing at all where that is no terminal.
    with Progress(*columns, console=Console(stderr=True), disable=not screen.shows_progress) as bar:
        task = bar.add_task("", total=None)
        return models.pull(name, progress=lambda done, total: bar.update(task, completed=done, total=total))


def pull(screen: Screen, name: str) -> None:
    """Fetch a model's weights and say where they are."""
    here = models.installed(name)
    path = pulled(screen, name)
    screen.line(f"{name} {'was here already' if here else 'is here'}: {path}")


def show_path(screen: Screen, name: str) -> None:
    """Print where a model's weights are, for scripts."""
    screen.line(str(models.path_of(name)))


def remove(screen: Screen, name: str) -> None:
    """Delete a model's weights."""
    path = models.path_of(name)
    models.remove(name)
    screen.line(f"removed {path}")
