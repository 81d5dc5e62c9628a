"""The annotations of a class body, before and after the class is made, on every Python."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

from otpy.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["annotations_in", "annotations_of", "resolved"]


def annotations_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotations in the namespace of a class that is being made; names not yet defined stay references.

    Example:
        >>> from otpy.signatures.annotations import annotations_in
        >>> annotations_in({"__annotations__": {"question": "str"}})
        {'question': 'str'}
    """
    if sys.version_info >= (3, 14):  # there, annotations are a function that is called when somebody asks
        lib = importlib.import_module("annotationlib")
        annotate = lib.get_annotate_from_class_namespace(namespace)
        return {} if annotate is None else dict(lib.call_annotate_function(annotate, lib.Format.FORWARDREF))
    return dict(namespace.get("__annotations__", {}))


def annotations_of(cls: type) -> dict[str, Any]:
    """Return a class's own annotations, without those of its bases; names not yet defined stay references.

    Example:
        >>> from otpy.signatures.annotations import annotations_of
        >>> class Point:
        ...     x: int
        >>> list(annotations_of(Point))
        ['x']
    """
    if sys.version_info >= (3, 14):
        lib = importlib.import_module("annotationlib")
        return dict(lib.get_annotations(cls, format=lib.Format.FORWARDREF))
    return inspect.get_annotations(cls)


def resolved(where: str, annotation: str, module: str, scope: Mapping[str, Any]) -> Any:
    """Return the type that an annotation names which is text, as all are under `from __future__ import annotations`.

    Args:
        where: The field, for the message.
        annotation: The text.
        module: Where the class is defined.
        scope: The local names where its `class` statement stands.

    Raises:
        SignatureError: If a name in it means nothing there.
    """
    names = getattr(sys.modules.get(module), "__dict__", {})
    try:
        return eval(annotation, dict(names), dict(scope))  # noqa: S307 - the user's own source, as Python would do it
    except Exception as error:  # noqa: BLE001 - a type expression may raise anything
        raise SignatureError(
            f"{where}: the type {annotation!r} can't be resolved: {error}; define or import it before the signature,"
            " outside of `if TYPE_CHECKING:`"
        ) from None
