"""A supervision tree as data and as text, read without disturbing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.actors import Ref

__all__ = ["Branch", "branch", "draw"]


@dataclass(frozen=True, slots=True)
class Branch:
    """A process and what it supervises.

    Args:
        id: Its id within its supervisor, or its class.
        what: Its strategy, or its restart type.
        state: `"up"`, `"down"` or `"restarting"`.
        restarts: How often it was restarted.
        note: What it says of itself, such as `"3 running"`.
        children: What it supervises, in start order.
    """

    id: Any
    what: str
    state: str
    restarts: int = 0
    note: str = ""
    children: tuple[Branch, ...] = ()


def branch(ref: Ref[Any], id: Any = None, what: str = "", restarts: int = 0) -> Branch:  # noqa: A002 - OTP's word
    """Read the tree below a process.

    Args:
        ref: Its root.
        id: What to call the root.
        what: The root's restart type.
        restarts: How often the root was restarted.
    """
    actor = getattr(ref.process, "actor", None)
    children = tuple(
        Branch(child.spec.id, str(child.spec.restart), child.state, child.restarts)
        if child.ref is None
        else branch(child.ref, child.spec.id, str(child.spec.restart), child.restarts)
        for child in list(getattr(actor, "children", ()))
    )
    strategy = getattr(actor, "strategy", None)
    note = getattr(actor, "status", "")
    return Branch(
        ref.process.kind.__name__ if id is None else id,
        what if strategy is None else str(strategy),
        "up" if ref.is_alive() else "down",
        restarts,
        str(note() if callable(note) else note),
        children,
    )


def draw(tree: Branch) -> str:
    """Return a tree as text, one line a process.

    Example:
        >>> from otpy.supervisors.render import Branch, draw
        >>> print(draw(Branch("app", "rest_for_one", "up", children=(Branch("db", "permanent", "up", 1),))))
        app    rest_for_one  up
        └─ db  permanent     up  restarts 1
    """
    rows = list(_rows(tree, "", ""))
    wide = max(len(name) for name, *_ in rows) + 2
    second = max(len(what) for _, what, _ in rows) + 2
    return "\n".join(f"{name:<{wide}}{what:<{second}}{rest}".rstrip() for name, what, rest in rows)


def _rows(tree: Branch, lead: str, below: str) -> Iterator[tuple[str, str, str]]:
    rest = [tree.state, tree.note, f"restarts {tree.restarts}" if tree.restarts else ""]
    yield lead + str(tree.id), tree.what, "  ".join(part for part in rest if part)
    for number, child in enumerate(tree.children):
        last = number == len(tree.children) - 1
        yield from _rows(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
