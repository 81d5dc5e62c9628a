"""What goes to a worker process and what comes back: pickled, on a pipe that only the two of them have.

Pickle runs code, so it is for those who trust each other: both ends are the same user's, the same interpreter and the
same code. Three things travel that plain pickle refuses: functions that no module knows by name (a lambda, the metrics
that `exact_match` makes) go as their code, signatures made from a string as their fields, and what is defined in a
script is looked up in the script, which the worker imports under another name, as `multiprocessing` does.
"""

from __future__ import annotations

import importlib
import io
import marshal
import os
import pickle
import runpy
import sys
from binascii import a2b_base64, b2a_base64
from types import CellType, FunctionType, MappingProxyType, ModuleType
from typing import Any, Final, Literal, TypeAlias, cast

from otpy.errors import EvaluationError
from otpy.signatures import Signature, SignatureMeta

__all__ = ["Origin", "importing_main", "main_is", "origin_of_main", "packed", "pickled", "unpacked", "unpickled"]

Origin: TypeAlias = tuple[Literal["module", "path"], str] | None
"""Where the program that runs came from; `None` if nobody can import it, as in an interactive session."""

_ALIAS: Final = "__mp_main__"  # known to `multiprocessing`, and to whoever asks whether it is imported by a worker
_NEXT: Final = (
    "define its classes at the top level of a module, and open files, locks and connections where they are used; or"
    ' take isolation="task"'
)


def pickled(value: object, what: str) -> bytes:
    """Pickle a value for a worker process, or back.

    Args:
        value: The value.
        what: What it is, for the message.

    Raises:
        EvaluationError: If it cannot be pickled; the message names it, and what to do.

    Example:
        >>> from otpy.evaluate.parcels import pickled, unpickled
        >>> twice = unpickled(pickled(lambda n: 2 * n, "a function"))
        >>> twice(21)
        42
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception as error:
        raise EvaluationError(
            f"{what} cannot be sent between processes: {type(error).__name__}: {error}; {_NEXT}"
        ) from error
    return buffer.getvalue()


def packed(value: object, what: str) -> str:
    """Pickle a value as text without line ends; arguments and errors as for `pickled`."""
    return b2a_base64(pickled(value, what), newline=False).decode("ascii")


def unpickled(data: bytes) -> Any:
    """Return what was pickled.

    Args:
        data: What `pickled` returned, in a process that we trust.

    Raises:
        Exception: Whatever looking up its classes or making its objects raises.
    """
    return _Unpickler(io.BytesIO(data)).load()


def unpacked(text: str) -> Any:
    """Return what was packed; errors as for `unpickled`."""
    return unpickled(a2b_base64(text))


# -- what plain pickle refuses ----------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any, /) -> Any:
        if type(value) is FunctionType:
            return NotImplemented if _known(value) else _as_code(value)
        if isinstance(value, SignatureMeta):
            return NotImplemented if _known(value) else _as_fields(value)
        if type(value) is MappingProxyType:
            return MappingProxyType, (dict(cast("Any", value)),)
        return NotImplemented


def _known(value: Any) -> bool:
    """Whether its module has it under its name."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _as_fields(signature: SignatureMeta) -> tuple[Any, ...]:
    names = (signature.__name__, signature.__module__, signature.__qualname__)
    return _signature, (*names, tuple(signature.fields.values()), signature.instructions)


def _signature(name: str, module: str, qualname: str, fields: tuple[Any, ...], instructions: str) -> Any:
    namespace = {"__module__": module, "__qualname__": qualname}
    return SignatureMeta(name, (Signature,), namespace, fields=fields, instructions=instructions)


def _as_code(function: FunctionType) -> tuple[Any, ...]:
    cells = [_content(cell) for cell in function.__closure__ or ()]
    facts = (function.__qualname__, function.__defaults__, function.__kwdefaults__, function.__dict__)
    module = function.__globals__["__name__"]
    made = (marshal.dumps(function.__code__), module, function.__name__, len(cells))
    return _function, made, (cells, *facts), None, None, _fill  # filled last: it may be in a cell of its own


def _content(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # nothing was assigned yet
        return ()


def _function(code: bytes, module: str, name: str, cells: int) -> FunctionType:
    closure = tuple(CellType() for _ in range(cells))
    scope = vars(_module(module))
    return FunctionType(marshal.loads(code), scope, name, None, closure)  # noqa: S302 - the same interpreter wrote it


def _fill(function: FunctionType, state: tuple[Any, ...]) -> None:
    contents, function.__qualname__, function.__defaults__, function.__kwdefaults__, facts = state
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        if content:
            (cell.cell_contents,) = content
    vars(function).update(facts)


# -- the script -------------------------------------------------------------------------------------------------------


class _Main:
    """The script: the module that runs, or in a worker what was imported in its place."""

    origin: Origin = None
    worker = False
    importing = False


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name not in {"__main__", _ALIAS}:
            return super().find_class(module_name, global_name)
        found: Any = _module(module_name)
        for name in global_name.split("."):
            found = getattr(found, name)
        return found


def _module(name: str) -> ModuleType:
    if name not in {"__main__", _ALIAS}:
        return importlib.import_module(name)
    if _Main.worker and _ALIAS not in sys.modules:
        _import_main()
    return sys.modules[_ALIAS if _Main.worker else "__main__"]


def origin_of_main() -> Origin:
    """Return where a worker finds the script that runs here; arguments to this process are not part of it."""
    if _Main.worker:
        return _Main.origin
    main: Any = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        package = spec.name == "__main__" or spec.name.endswith(".__main__")  # whose import would run it
        return None if package else ("module", spec.name)
    path = getattr(main, "__file__", None)
    if path is None or not os.path.exists(path):  # noqa: PTH110 - `<stdin>` is a name too
        return None
    return "path", os.path.abspath(path)  # noqa: PTH100 - links are not followed


def main_is(origin: Origin) -> None:
    """Say, in a worker, where the script is; it is imported when something in it is asked for.

    Args:
        origin: What `origin_of_main` returned in the parent.
    """
    _Main.origin, _Main.worker = origin, True


def importing_main() -> bool:
    """Whether a worker is just importing the script: what the script does then, it does in every worker."""
    return _Main.importing


def _import_main() -> None:
    if _Main.origin is None:
        raise EvaluationError(
            "something in it is defined in __main__, which a worker process cannot import here (an interactive session,"
            " a notebook, `python -c`, a script on standard input); put it into a module of its own and import it"
        )
    kind, where = _Main.origin
    main = ModuleType(_ALIAS)
    _Main.importing = True
    try:
        if kind == "module":
            scope = runpy.run_module(where, run_name=_ALIAS, alter_sys=True)
        else:
            scope = runpy.run_path(where, run_name=_ALIAS)
    finally:
        _Main.importing = False
    vars(main).update(scope)
    sys.modules["__main__"] = sys.modules[_ALIAS] = main
