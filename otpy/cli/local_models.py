"""`otpy models`: which models run on this machine, and where their weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from otpy.clients import models
from otpy.config.local_models import LOCAL_MODELS, LocalModel, adapters, local_model
from otpy.errors import ModelNotAvailable

if TYPE_CHECKING:
    from pathlib import Path

    from otpy.cli.screen import Screen

__all__ = ["pull", "pulled", "remove", "show_list", "show_path"]


def show_list(screen: Screen) -> None:
    """Print a line for every model that can run here, then for all that they have learned here."""
    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "megabytes": round(model.size / 1e6),
            "licence": model.licence,
            "context": model.context,
            "path": str(model.file) if models.installed(model.name) else None,
        }
        for model in LOCAL_MODELS.values()
    ]
    rows += [
        {
            "name": f"{model.name}+{model.adapter}",
            "megabytes": round(file.stat().st_size / 1e6),
            "licence": model.licence,
            "context": model.context,
            "path": str(file),
        }
        for model in adapters()
        if (file := model.adapter_file) is not None
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
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # On stderr, and nothing at all where that is no terminal.
    with Progress(*columns, console=Console(stderr=True), disable=not screen.shows_progress, transient=True) as bar:
        task = bar.add_task(f"fetching {name}", total=None)
        return models.pull(
            name,
            lambda what, done, total: bar.update(task, description=f"{what} {name}", completed=done, total=total),
        )


def pull(screen: Screen, name: str) -> None:
    """Fetch a model's weights and say where they are."""
    _known(name)
    here = models.installed(name)
    path = pulled(screen, name)
    screen.line(f"{name} {'was here already' if here else 'is here'}: {path}")


def show_path(screen: Screen, name: str) -> None:
    """Print where a model's weights are, for scripts."""
    model = _present(name)
    screen.line(str(model.adapter_file or model.file))


def remove(screen: Screen, name: str) -> None:
    """Delete a model's weights."""
    model = _present(name)
    models.remove(name)
    screen.line(f"removed {model.adapter_file or model.file}")


def _known(name: str) -> LocalModel:
    model = local_model(name)
    if model is None:
        known = ", ".join(LOCAL_MODELS)
        raise typer.BadParameter(f"unknown local model {name!r}; known: {known}", param_hint="NAME")
    return model


def _present(name: str) -> LocalModel:
    model = _known(name)
    if model.adapter_file is not None and not model.adapter_file.exists():
        raise ModelNotAvailable(f"what {name} has learned is not here: {model.adapter_file}; train it again")
    if model.adapter_file is None and not model.file.exists():
        raise ModelNotAvailable(f"the weights of {name} are not here; fetch them: otpy models pull {name}")
    return model
