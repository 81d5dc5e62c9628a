"""`diff`: in what two programs differ, as a value that can be read, shown in a notebook, and counted."""

from __future__ import annotations

import html
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import ProgramError
from otpy.programs import files, state
from otpy.programs.parts import programs_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otpy.programs.program import Program

__all__ = ["Change", "Difference", "diff"]

_PATHS: Final = (str, os.PathLike)
_SHOWN: Final = 200  # characters of a value in the text
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in which two programs differ.

    Args:
        path: Where: a predictor, as in `named_predictors()`, or the program or attribute.
        what: What of it: `"instructions"`, `"demo 2"`, `"demos"`, `"field answer"`, `"desc of answer"`, `"fields"`,
            `"client"`, `"adapter"`, `"config temperature"`, `"value"`, `"class"`, `"predictor"`.
        how: `"added"`, `"removed"`, `"moved"` or `"changed"`.
        before: What the first program has, as JSON data; `None` if it has nothing there.
        after: What the second has.
    """

    path: str
    what: str
    how: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        """Print it as two lines at most."""
        lines = [f"{self.what} {self.how}"]
        if self.how in {"removed", "changed"}:
            lines.append(f"  - {_text(self.before)}")
        if self.how in {"added", "changed"}:
            lines.append(f"  + {_text(self.after)}")
        if self.how == "moved":
            lines.append(f"  {_text(self.before)} -> {_text(self.after)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Difference:
    """In what two programs differ: nothing, if it is false.

    Args:
        changes: All of it, program by program.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.programs.difference import diff
        >>> plain = Predict("question -> answer")
        >>> print(diff(plain, plain.with_config(temperature=0.5)))
        self
          config temperature changed
            - null
            + 0.5
        >>> bool(diff(plain, plain)), str(diff(plain, plain))
        (False, 'no difference')
    """

    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.changes)

    def __len__(self) -> int:
        """Count the changes."""
        return len(self.changes)

    def __iter__(self) -> Iterator[Change]:
        """Iterate over the changes."""
        return iter(self.changes)

    def of(self, path: str) -> tuple[Change, ...]:
        """Return the changes at one path.

        Args:
            path: As in `Change.path`.
        """
        return tuple(change for change in self.changes if change.path == path)

    def to_json(self) -> list[dict[str, Any]]:
        """Return all of it as JSON data."""
        return [asdict(change) for change in self.changes]

    def __str__(self) -> str:
        """Print the changes below their paths."""
        lines: list[str] = []
        for path in dict.fromkeys(change.path for change in self.changes):
            lines.append(path)
            lines += ["  " + line for change in self.of(path) for line in str(change).splitlines()]
        return "\n".join(lines) or "no difference"

    def _repr_html_(self) -> str:
        """Show a table in a notebook."""
        cell = "<td style='text-align:left; white-space:pre-wrap'>{}</td>".format
        rows = "".join(
            f"<tr>{cell(html.escape(change.path))}{cell(html.escape(f'{change.what} {change.how}'))}"
            f"{cell(_marked('del', change.before))}{cell(_marked('ins', change.after))}</tr>"
            for change in self.changes
        )
        head = "<tr><th>where</th><th>what</th><th>before</th><th>after</th></tr>"
        return f"<table>{head}{rows}</table>" if rows else "no difference"


def diff(before: Program | str | os.PathLike[str], after: Program | str | os.PathLike[str]) -> Difference:
    """Return in what two programs differ.

    Args:
        before: A program, or the file of one; a file is only read, so it needs none of your code.
        after: Another.

    Raises:
        ProgramError: If a file cannot be read, is no saved program, or does not match its hash.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.programs.difference import diff
        >>> plain = Predict("question -> answer")
        >>> demo = {"question": "2 + 2?", "answer": "4"}
        >>> [(change.what, change.how) for change in diff(plain, plain.with_demos([demo]))]
        [('demo 1', 'added')]
    """
    first, second = _state(before), _state(after)
    changes = [*_trees(first.get("tree"), second.get("tree"), ""), *_predictors(first, second)]
    if not isinstance(before, _PATHS) and not isinstance(after, _PATHS):
        changes += _code(before, after, "")
    return Difference(tuple(changes))


def _state(program: Program | str | os.PathLike[str]) -> Mapping[str, Any]:
    if isinstance(program, _PATHS):
        return files.read(program, verify=True)
    if not hasattr(type(program), "named_predictors"):
        raise ProgramError(f"diff() takes programs or the files of programs, not {program!r:.100}")
    return state.dumped(program)


# -- classes and values ---------------------------------------------------------------------------------------------


def _trees(before: Any, after: Any, path: str) -> Iterator[Change]:
    """Compare two nodes of the trees of `otpy.programs.state`; a file of format 1 has none, and is compared without."""
    if before is None or after is None:
        return
    one: Any
    other: Any
    where = path or "program"
    first, second = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
    match first, second:
        case {"class": _}, {"class": _}:
            if _leaf(before) != _leaf(after):
                yield Change(where, "class", "changed", _leaf(before), _leaf(after))
            yield from _pairs(first.get("parts", {}), second.get("parts", {}), path, "{}.{}" if path else "{}{}")
        case {"list": one}, {"list": other}:
            yield from _pairs(_numbered(one), _numbered(other), path, "{}[{!r}]")
        case {"dict": one}, {"dict": other}:
            yield from _pairs(dict(one), dict(other), path, "{}[{!r}]")
        case _ if before != after:
            yield Change(where, "value", "changed", _leaf(before), _leaf(after))
        case _:
            return


def _numbered(items: Any) -> dict[Any, Any]:
    pairs: Any = enumerate(items)
    return dict(pairs)


def _pairs(before: Mapping[Any, Any], after: Mapping[Any, Any], path: str, form: str) -> Iterator[Change]:
    for key in dict.fromkeys([*before, *after]):
        where = form.format(path, key)
        if key not in after:
            yield Change(where, "value", "removed", _leaf(before[key]))
        elif key not in before:
            yield Change(where, "value", "added", None, _leaf(after[key]))
        else:
            yield from _trees(before[key], after[key], where)


def _leaf(node: Any) -> Any:
    match node:
        case {"value": value}:
            return value
        case {"class": str() as path}:
            return path.rpartition(":")[2]
        case {"signature": contract}:
            return contract
        case {"code": kind}:
            return f"({kind})"
        case _:
            return node


def _code(before: Any, after: Any, path: str) -> Iterator[Change]:
    """Compare what no file can hold: tools, functions, adapters of one's own, as attributes of the same programs."""
    if state.is_predictor(before) and state.is_predictor(after):
        if before.adapter != after.adapter and before.adapter.name == after.adapter.name:
            yield Change(path or "self", "adapter", "changed", repr(before.adapter), repr(after.adapter))
        return
    kind = state.kind_of(before)
    first, second = cast("dict[str, Any]", vars(before)), cast("dict[str, Any]", vars(after))
    for name, one in first.items():
        other = second.get(name, _ABSENT)
        where = f"{path}.{name}" if path else name
        ours, theirs = dict(programs_in(one, where, kind)), dict(programs_in(other, where, kind))
        for inner in ours.keys() & theirs.keys():
            yield from _code(ours[inner], theirs[inner], inner)
        if not ours and other is not _ABSENT and state.is_code(one) and state.is_code(other) and one != other:
            yield Change(where, "value", "changed", repr(one), repr(other))


# -- predictors -----------------------------------------------------------------------------------------------------


def _predictors(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    ours, theirs = before["predictors"], after["predictors"]
    for path in dict.fromkeys([*ours, *theirs]):
        if path not in theirs:
            yield Change(path, "predictor", "removed", _contract(ours[path]))
        elif path not in ours:
            yield Change(path, "predictor", "added", None, _contract(theirs[path]))
        else:
            yield from _predictor(path, ours[path], theirs[path])


def _contract(predictor: Mapping[str, Any]) -> str:
    sides: dict[str, list[str]] = {"input": [], "output": []}
    for field in predictor["signature"]["fields"]:
        sides[field["side"]].append(f"{field['name']}: {field['type']}")
    return " -> ".join(", ".join(side) for side in sides.values())


def _predictor(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    one, other = before["signature"], after["signature"]
    if one["instructions"] != other["instructions"]:
        yield Change(path, "instructions", "changed", one["instructions"], other["instructions"])
    yield from _fields(path, one["fields"], other["fields"])
    yield from _demos(path, before["demos"], after["demos"])
    for key in dict.fromkeys([*before, *after]):
        if key in {"signature", "demos"} or before.get(key) == after.get(key):
            continue
        mine, theirs = before.get(key), after.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            settings, others = cast("dict[str, Any]", mine), cast("dict[str, Any]", theirs)
            for name in dict.fromkeys([*settings, *others]):
                if settings.get(name) != others.get(name):
                    yield Change(path, f"{key} {name}", "changed", settings.get(name), others.get(name))
        else:
            yield Change(path, key, "changed", mine, theirs)


def _fields(path: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[Change]:
    ours, theirs = ({field["name"]: field for field in fields} for fields in (before, after))
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in theirs:
            yield Change(path, f"field {name}", "removed", ours[name])
        elif name not in ours:
            yield Change(path, f"field {name}", "added", None, theirs[name])
        else:
            for key in dict.fromkeys([*ours[name], *theirs[name]]):
                if ours[name].get(key) != theirs[name].get(key):
                    yield Change(path, f"{key} of {name}", "changed", ours[name].get(key), theirs[name].get(key))
    order = [name for name in ours if name in theirs], [name for name in theirs if name in ours]
    if order[0] != order[1]:
        yield Change(path, "fields", "moved", *order)


def _demos(path: str, before: list[Any], after: list[Any]) -> Iterator[Change]:
    """Match equal demos, each at most once; others were added or removed, and the equal ones may have moved."""
    texts = [json.dumps(demo, sort_keys=True) for demo in after]
    free = list(range(len(after)))
    matched: list[tuple[int, int]] = []
    for number, demo in enumerate(before):
        text = json.dumps(demo, sort_keys=True)
        found = next((at for at in free if texts[at] == text), None)
        if found is None:
            yield Change(path, f"demo {number + 1}", "removed", demo)
        else:
            free.remove(found)
            matched.append((number, found))
    for at in free:
        yield Change(path, f"demo {at + 1}", "added", None, after[at])
    if (order := [at for _, at in matched]) != sorted(order):
        yield Change(path, "demos", "moved", [number + 1 for number, _ in matched], [at + 1 for at in order])


# -- words ----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = json.dumps(text, ensure_ascii=False)[1:-1] if "\n" in text else text
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _marked(tag: str, value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return f"<{tag}>{html.escape(text)}</{tag}>"
