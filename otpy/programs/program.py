"""`Program`: a value that can be called; a composition of predictors with one `forward`.

Programs are frozen: what an optimizer or you would change is changed in a copy (`with_demos`, `with_instructions`, …).
They hold the names of clients, never a connection, so they can be compared, hashed, saved and sent anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import typing
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from typing_extensions import Self, dataclass_transform

from otpy.clients.running import running
from otpy.errors import ProgramError
from otpy.programs.trace import calling
from otpy.signatures import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from otpy.programs.predict import Predict

__all__ = ["Program"]

T = TypeVar("T")


class ProgramMeta(type):
    """Seals a program when its construction is finished."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Construct and seal."""
        program = super().__call__(*args, **kwargs)
        object.__setattr__(program, "_sealed", True)
        return program


@dataclass_transform(kw_only_default=True)
class Program(metaclass=ProgramMeta):
    """The base of programs: declare sub-programs as attributes, and what to do with them in `forward`.

    `forward` may be a plain method or `async def`; it takes the inputs by name and returns a `Prediction`. A plain one
    runs in a worker thread when many run at once; an asynchronous one needs none.

    Example:
        >>> from otpy.programs import ChainOfThought, Predict, Program
        >>> class Answer(Program):
        ...     rewrite: Predict = Predict("question -> query")
        ...     answer: ChainOfThought = ChainOfThought("query -> answer")
        ...
        ...     async def forward(self, question):
        ...         rewritten = await self.rewrite.acall(question=question)
        ...         return await self.answer.acall(query=rewritten.query)
        >>> [path for path, _ in Answer().named_predictors()]
        ['rewrite', 'answer.predict']
    """

    _parts: ClassVar[tuple[str, ...]] = ()
    _sealed: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect what the class body declares."""
        super().__init_subclass__(**kwargs)
        own = [name for name, annotation in cls.__dict__.get("__annotations__", {}).items()
               if not name.startswith("_") and "ClassVar" not in str(annotation)]  # fmt: skip
        own += [name for name, value in vars(cls).items() if isinstance(value, Program) and name not in own]
        cls._parts = (*cls._parts, *(name for name in own if name not in cls._parts))

    def __init__(self, **parts: Any) -> None:
        """Take the declared parts by name; those with a default may be left out."""
        for name in self._parts:
            if name in parts:
                setattr(self, name, parts.pop(name))
            elif hasattr(type(self), name):
                setattr(self, name, getattr(type(self), name))
            else:
                raise ProgramError(f"{type(self).__name__} needs {name}=…")
        if parts:
            known = ", ".join(self._parts) or "nothing"
            raise ProgramError(f"{type(self).__name__} has no part {next(iter(parts))!r}; it has {known}")

    # -- calling ---------------------------------------------------------------------------------------------------

    def forward(self, **inputs: Any) -> Any:
        """Do the work; subclasses say how."""
        raise ProgramError(f"{type(self).__name__} has no forward(…), so there is nothing to call ({', '.join(inputs)})")

    def __call__(self, *args: Any, **inputs: Any) -> Prediction:
        """Run it and wait, in synchronous code.

        Args:
            args: None: inputs are given by name.
            inputs: The inputs.

        Raises:
            NoApplication: If no application is running.
            ProgramError: On the application's own loop, where `await program.acall(...)` is the way.
            SignatureError: If the inputs are not those of the signature.
            AdapterParseError: If the model's answer does not fulfil the signature, after all re-asks.
            ClientError: If the model could not be asked.
        """
        self._refuse_positional(args)
        application = running()
        if application.on_loop():
            raise ProgramError(
                f"{type(self).__name__} was called synchronously on the event loop, which would wait for itself;"
                f" use `await program.acall(...)`"
            )
        if self._is_async():
            return application.run(self.acall(**inputs))
        with calling(self):
            return self._checked(self.forward(**inputs))

    async def acall(self, *args: Any, **inputs: Any) -> Prediction:
        """Run it, in asynchronous code; arguments and errors as for a plain call."""
        self._refuse_positional(args)
        with calling(self):
            if self._is_async():
                return self._checked(await self.forward(**inputs))
            return self._checked(await running().in_thread(functools.partial(self.forward, **inputs)))

    @classmethod
    def _is_async(cls) -> bool:
        return inspect.iscoroutinefunction(cls.forward)

    def _refuse_positional(self, args: tuple[Any, ...]) -> None:
        if args:
            names = ", ".join(f"{name}=…" for name in self.input_names or ("question",))
            raise ProgramError(f"{type(self).__name__} takes its inputs by name, as in program({names})")

    def _checked(self, result: Any) -> Prediction:
        if not isinstance(result, Prediction):
            raise ProgramError(f"{type(self).__name__}.forward returned {type(result).__name__}, not a Prediction")
        return result

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the inputs, where they can be known: from the signature, or the parameters of `forward`."""
        parameters = inspect.signature(type(self).forward).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return None
        return tuple(parameter.name for parameter in parameters if parameter.name != "self")

    # -- a value ---------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse once construction is finished."""
        if self._sealed:
            raise ProgramError(
                f"{type(self).__name__}.{name}: programs do not change; with_demos, with_instructions, with_config and"
                f" with_client return changed copies"
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        """Refuse."""
        raise ProgramError(f"{type(self).__name__}.{name}: programs do not change")

    def _content(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __eq__(self, other: object) -> bool:
        """Whether class and content are the same."""
        return self is other or (
            isinstance(other, Program) and type(other) is type(self) and other._content() == self._content()
        )

    def __hash__(self) -> int:
        """By content."""
        return hash((type(self), self.content_hash()))

    def __repr__(self) -> str:
        """Print the class and the parts."""
        parts = ", ".join(f"{name}={value!r}" for name, value in self._content().items())
        return f"{type(self).__name__}({parts})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the content."""
        return _restore, (type(self), self._content())

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some attributes changed.

        Raises:
            ProgramError: If there is no such attribute.
        """
        content = self._content()
        for name in changes:
            if name not in content:
                raise ProgramError(f"{type(self).__name__} has no {name!r}; it has {', '.join(content)}")
        return _restore(type(self), {**content, **changes})

    # -- predictors ------------------------------------------------------------------------------------------------

    def named_predictors(self) -> list[tuple[str, Predict]]:
        """Return every predictor with its path, as in `("answer.predict", …)`."""
        return list(_walk(self._content()))

    def path_of(self, predictor: Predict) -> str:
        """Return where a predictor stands in this program, told by identity; `"self"` if it stands nowhere."""
        paths = self.__dict__.get("_paths")
        if paths is None:
            paths = {}
            for path, known in self.named_predictors():
                paths.setdefault(id(known), path)
            object.__setattr__(self, "_paths", paths)
        return paths.get(id(predictor), "self")

    def map_predictors(self, function: Callable[[str, Predict], Predict]) -> Self:
        """Return a copy in which every predictor is `function(path, predictor)`."""
        changed = {name: _map(value, name, function) for name, value in self._content().items()}
        return _restore(type(self), changed)

    def _with(self, what: str, value: Any, change: Callable[[Predict, Any], Predict], *, one: type) -> Self:
        known = [path for path, _ in self.named_predictors()]
        if isinstance(value, one):
            if len(known) != 1:
                raise ProgramError(
                    f"{type(self).__name__} has {len(known)} predictors ({', '.join(known)}); give {what} by path,"
                    f" as in {{{known[0]!r}: …}}"
                )
            value = {known[0]: value}
        for path in value:
            if path not in known:
                raise ProgramError(f"{type(self).__name__} has no predictor {path!r}; it has {', '.join(known)}")
        return self.map_predictors(lambda path, old: change(old, value[path]) if path in value else old)

    def with_demos(self, demos: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Mapping[str, Any]]]) -> Self:
        """Return a copy with these demos.

        Args:
            demos: The demos of the only predictor, or of several by path. Each holds every field of the signature;
                further ones are left out.

        Raises:
            ProgramError: If a path is unknown, or one is needed.
            SignatureError: If a demo lacks a field or has an invalid value.
        """
        given = demos if _is_by_path(demos) else list(demos)  # type: ignore[arg-type]
        return self._with("demos", given, lambda old, new: old.replace_demos(new), one=list)

    def with_instructions(self, instructions: str | Mapping[str, str]) -> Self:
        """Return a copy with these instructions: one text for the only predictor, or several by path.

        Raises:
            ProgramError: If a path is unknown, or one is needed.
        """
        return self._with(
            "instructions",
            instructions,
            lambda old, new: old.replace(signature=old.signature.with_instructions(new)),
            one=str,
        )

    def with_client(self, client: str) -> Self:
        """Return a copy in which every predictor asks the client of this name."""
        return self.map_predictors(lambda _, old: old.replace(client=client))

    def with_config(self, **config: Any) -> Self:
        """Return a copy with other parameters in every predictor.

        Args:
            config: `temperature`, `max_tokens`, `max_reasks`, `rollout`, `adapter`.

        Raises:
            ProgramError: If a parameter is unknown.
        """
        return self.map_predictors(lambda _, old: old.configured(**config))

    # -- state -----------------------------------------------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """Return everything that can be learned, as JSON data: for each predictor its contract, demos and parameters."""
        return {
            "program": type(self).__name__,
            "predictors": {path: predictor.dump_predictor() for path, predictor in self.named_predictors()},
        }

    def content_hash(self) -> str:
        """Return a hash of `dump_state`, the same in every process."""
        known = self.__dict__.get("_hash")
        if known is None:
            text = json.dumps(self.dump_state(), sort_keys=True, ensure_ascii=False)
            known = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
            object.__setattr__(self, "_hash", known)
        return typing.cast("str", known)

    def save(self, path: str | Path) -> None:
        """Write the state to a JSON file; see `otpy.programs.save`."""
        from otpy.programs.saving import save  # noqa: PLC0415 - saving knows programs

        save(self, path)

    def load(self, path: str | Path, *, verify: bool = True) -> Self:
        """Return a copy with the state of a JSON file; see `otpy.programs.load`."""
        from otpy.programs.saving import load  # noqa: PLC0415 - saving knows programs

        return load(self, path, verify=verify)

    def render(self) -> str:
        """Return the tree of sub-programs as text."""
        return "\n".join(_render(self, type(self).__name__, ""))


def _restore(cls: type[T], content: Mapping[str, Any]) -> T:
    program = object.__new__(cls)
    for name, value in content.items():
        object.__setattr__(program, name, value)
    object.__setattr__(program, "_sealed", True)
    return program


def _is_by_path(value: object) -> bool:
    from collections.abc import Mapping  # noqa: PLC0415 - a type elsewhere in this module

    return isinstance(value, Mapping)


def _walk(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    from otpy.programs.predict import Predict  # noqa: PLC0415 - a predictor is a program

    for name, value in content.items():
        path = f"{prefix}{name}"
        if isinstance(value, Predict):
            yield path, value
        elif isinstance(value, Program):
            yield from _walk(value._content(), f"{path}.")  # noqa: SLF001 - the same family
        elif isinstance(value, (list, tuple)):
            yield from _walk({f"[{number}]": item for number, item in enumerate(value)}, path)
        elif isinstance(value, dict):
            yield from _walk({f"[{key!r}]": item for key, item in value.items()}, path)


def _map(value: Any, path: str, function: Callable[[str, Any], Any]) -> Any:
    from otpy.programs.predict import Predict  # noqa: PLC0415 - a predictor is a program

    if isinstance(value, Predict):
        return function(path, value)
    if isinstance(value, Program):
        content = value._content()  # noqa: SLF001 - the same family
        return _restore(type(value), {name: _map(part, f"{path}.{name}", function) for name, part in content.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_map(item, f"{path}[{number}]", function) for number, item in enumerate(value))
    if isinstance(value, dict):
        return {key: _map(item, f"{path}[{key!r}]", function) for key, item in value.items()}
    return value


def _render(program: Any, name: str, indent: str) -> Iterator[str]:
    from otpy.programs.predict import Predict  # noqa: PLC0415 - a predictor is a program

    if isinstance(program, Predict):
        demos = f", {len(program.demos)} demos" if program.demos else ""
        yield f"{indent}{name}: Predict({program.signature.signature}{demos})"
        return
    yield f"{indent}{name}" if name == type(program).__name__ else f"{indent}{name}: {type(program).__name__}"
    for part, value in program._content().items():  # noqa: SLF001 - the same family
        if isinstance(value, Program):
            yield from _render(value, part, indent + "  ")
