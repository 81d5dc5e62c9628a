"""The parts of a program: values, alone or in lists and dictionaries, some of which are programs. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["frozen", "mapped", "programs_in", "thawed"]

P = TypeVar("P")


def frozen(value: Any) -> Any:
    """Return a value whose lists and dictionaries, at any depth, cannot be changed any more.

    Example:
        >>> from otpy.programs.parts import frozen
        >>> frozen([1, {"a": [2]}])
        (1, mappingproxy({'a': (2,)}))
    """
    if type(value) in {list, tuple}:
        return tuple(frozen(item) for item in value)
    if type(value) in {dict, MappingProxyType}:
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    return frozenset(cast("Any", value)) if type(value) is set else value


def thawed(value: Any) -> Any:
    """Return a frozen value in a form that can be pickled."""
    if type(value) is tuple:
        return tuple(thawed(item) for item in cast("Any", value))
    if type(value) is MappingProxyType:
        return {key: thawed(item) for key, item in cast("Any", value).items()}
    return value


def programs_in(value: Any, path: str, kind: type[P]) -> Iterator[tuple[str, P]]:
    """Find the programs in a frozen value, with their paths.

    Args:
        value: The value.
        path: Its own path.
        kind: The class of programs.

    Example:
        >>> from otpy.programs.parts import programs_in
        >>> list(programs_in((1, "x"), "steps", str))
        [('steps[1]', 'x')]
    """
    if isinstance(value, kind):
        yield path, value
    elif type(value) is tuple:
        for number, item in enumerate(cast("Any", value)):
            yield from programs_in(item, f"{path}[{number}]", kind)
    elif type(value) is MappingProxyType:
        for key, item in cast("Any", value).items():
            yield from programs_in(item, f"{path}[{key!r}]", kind)


def mapped(value: Any, path: str, kind: type[P], function: Callable[[str, P], P]) -> Any:
    """Return a frozen value in which every program is `function(path, program)`.

    Args:
        value: The value.
        path: Its own path.
        kind: The class of programs.
        function: What to put in a program's place.
    """
    if isinstance(value, kind):
        return function(path, value)
    if type(value) is tuple:
        items = enumerate(cast("Any", value))
        return tuple(mapped(item, f"{path}[{number}]", kind, function) for number, item in items)
    if type(value) is MappingProxyType:
        pairs = cast("Any", value).items()
        return MappingProxyType({key: mapped(item, f"{path}[{key!r}]", kind, function) for key, item in pairs})
    return value
