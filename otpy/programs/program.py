"""`Program`: a value that can be called; a composition of predictors with one `forward`.

Programs are frozen: what an optimizer or you would change is changed in a copy (`with_demos`, `with_instructions`, …).
They hold the names of clients, never a connection, so they can be compared, hashed, saved and sent anywhere.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from otpy.clients.running import running
from otpy.errors import ProgramError
from otpy.programs import files, state
from otpy.programs.parameters import UnknownParameter, unknown
from otpy.programs.parts import frozen, mapped, programs_in, thawed
from otpy.programs.trace import Call, calling
from otpy.programs.ways import Ways
from otpy.programs.worker import in_worker
from otpy.signatures import Prediction
from otpy.signatures.annotations import annotations_of
from otpy.signatures.example import exchanges_of, retold

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from otpy.programs.lineage import Lineage
    from otpy.programs.predict import Predict

__all__ = ["Program"]

T = TypeVar("T")


class ProgramMeta(type):
    """Seals a program when its construction is finished."""

    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Construct and seal."""
        try:
            program: Any = super().__call__(*args, **kwargs)  # type: ignore[misc]
        except (TypeError, UnknownParameter) as error:
            raise unknown(cls, error, kwargs) or error from None
        return program._sealed_with(vars(program))  # type: ignore[no-any-return]  # noqa: SLF001 - our own class


@dataclass_transform(kw_only_default=True)
class Program(Ways, metaclass=ProgramMeta):
    """The base of programs: declare sub-programs as attributes, and what to do with them in `forward`.

    `forward` may be a plain method or `async def`; it takes the inputs by name and returns a `Prediction`. A plain one
    runs in a worker thread when many run at once; an asynchronous one needs none. Sub-programs may also be assigned in
    an `__init__` of your own, alone or in lists and dictionaries, which are frozen when it returns.

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

    __slots__ = ("__dict__", "__weakref__", "_memo")

    _parts: ClassVar[tuple[str, ...]] = ()
    _memo: dict[str, Any]

    if TYPE_CHECKING:
        forward: ClassVar[Callable[..., Any]]
        """Do the work: subclasses say how, with parameters of their own."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect what the class body declares."""
        super().__init_subclass__(**kwargs)
        own = [name for name, annotation in annotations_of(cls).items()
               if not name.startswith("_") and "ClassVar" not in str(annotation)]  # fmt: skip
        own += [name for name, value in vars(cls).items() if isinstance(value, Program) and name not in own]
        for name in own:
            if name in _METHODS:
                raise ProgramError(f"{cls.__name__}.{name}: a part of this name would hide Program.{name}; rename it")
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
            known = ", ".join(self._parts) or "none"
            raise ProgramError(f"{type(self).__name__} has no part {next(iter(parts))!r}; its parts: {known}")

    # -- calling ---------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **inputs: Any) -> Prediction:
        """Run it and wait, in synchronous code.

        Args:
            args: None: inputs are given by name.
            inputs: The inputs.

        Raises:
            NoApplication: If no application is running.
            ProgramError: On the application's own loop, where `await program.acall(...)` is the way; or if `forward`
                does not take these inputs, or returns no `Prediction`.
            SignatureError: If the inputs are not those of the signature.
            AdapterParseError: If the model's answer does not fulfil the signature, after all re-asks.
            ClientError: If the model could not be asked.
        """
        self._refuse(args, inputs)
        application = running()
        if application.on_loop():
            raise ProgramError(
                f"{type(self).__name__} was called synchronously on the event loop, which would wait for itself;"
                " use `await program.acall(...)`"
            )
        if self._is_async():
            return application.run(self.acall(**inputs))
        with calling(self) as call:
            return self._finished(self.forward(**inputs), call)

    async def acall(self, *args: Any, **inputs: Any) -> Prediction:
        """Run it, in asynchronous code; arguments and errors as for a plain call."""
        self._refuse(args, inputs)
        with calling(self) as call:
            if self._is_async():
                return self._finished(await self.forward(**inputs), call)
            return self._finished(await in_worker(functools.partial(self.forward, **inputs)), call)

    @classmethod
    def _is_async(cls) -> bool:
        return inspect.iscoroutinefunction(cls.forward)

    def _refuse(self, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
        """Refuse what `forward` would not take, before anything is started."""
        if args:
            names = ", ".join(f"{name}=…" for name in self.input_names or ("question",))
            raise ProgramError(f"{type(self).__name__} takes its inputs by name, as in program({names})")
        try:
            _signature_of(type(self)).bind(self, **inputs)
        except TypeError as error:
            names = ", ".join(self.input_names or ())
            raise ProgramError(f"{type(self).__name__}.forward: {error}; it takes {names}") from None

    def _finished(self, result: Any, call: Call) -> Prediction:
        if isinstance(result, Prediction):
            usage, exchanges = call.usage, tuple(call.exchanges)
            if result.usage == usage and exchanges_of(result) == exchanges:
                return result
            return retold(result, usage, exchanges)
        if inspect.iscoroutine(result):
            result.close()
            raise ProgramError(
                f"{type(self).__name__}.forward returned a coroutine; make it `async def` and await that"
            )
        then = "; return otpy.Prediction(**it)" if isinstance(result, Mapping) else ""
        raise ProgramError(f"{type(self).__name__}.forward returned {type(result).__name__}, not a Prediction{then}")

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the inputs, where they can be known: from the signature, or the parameters of `forward`."""
        _, *parameters = _signature_of(type(self)).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return None
        return tuple(parameter.name for parameter in parameters)

    # -- a value ---------------------------------------------------------------------------------------------------

    def _sealed_with(self, content: Mapping[str, Any]) -> Self:
        """Make `content` all there is, for good; a predictor that stands in two places becomes two."""
        seen: set[int] = set()

        def own(_: str, part: Program) -> Program:
            predictors = {id(predictor) for _, predictor in part.named_predictors()}
            if predictors & seen:
                part = part.map_predictors(lambda _, predictor: predictor.replace())
                predictors = {id(predictor) for _, predictor in part.named_predictors()}
            seen.update(predictors)
            return part

        content = {name: mapped(frozen(value), name, Program, own) for name, value in content.items()}
        own_values: dict[str, Any] = self.__dict__  # pyright: ignore[reportAssignmentType] - because of __slots__
        own_values.clear()
        own_values.update(content)
        object.__setattr__(self, "_memo", {})
        return self

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse once construction is finished."""
        if name == "__orig_class__":  # typing notes it of `Predict[Triage](Triage)`; it is no content
            return
        if hasattr(self, "_memo"):
            raise ProgramError(
                f"{type(self).__name__}.{name}: programs do not change; with_demos, with_instructions, with_config,"
                " with_client and replace return changed copies"
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        """Refuse."""
        raise ProgramError(f"{type(self).__name__}.{name}: programs do not change")

    def __eq__(self, other: object) -> bool:
        """Whether class and content are the same."""
        return self is other or (type(other) is type(self) and vars(other) == vars(self))

    def __hash__(self) -> int:
        """By content."""
        return hash((type(self), self.content_hash()))

    def __repr__(self) -> str:
        """Print the class and the parts."""
        parts = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({parts})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the content."""
        return _restored, (type(self), {name: thawed(value) for name, value in vars(self).items()})

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some attributes changed.

        Raises:
            ProgramError: If there is no such attribute.
        """
        for name in changes:
            if name not in vars(self):
                raise ProgramError(f"{type(self).__name__} has no {name!r}; it has {', '.join(vars(self))}")
        return _restored(type(self), {**vars(self), **changes})

    # -- predictors ------------------------------------------------------------------------------------------------

    def _children(self) -> Iterator[tuple[str, Program]]:
        for name, value in vars(self).items():
            yield from programs_in(value, name, Program)

    def named_predictors(self) -> list[tuple[str, Predict]]:
        """Return every predictor with its path, as in `("answer.predict", …)`; a bare predictor is `"self"`."""
        found: list[tuple[str, Predict]] = []
        for path, part in self._children():
            for inner, predictor in part.named_predictors():
                found.append((path if predictor is part else f"{path}.{inner}", predictor))
        return found

    def path_of(self, predictor: Predict) -> str | None:
        """Return where a predictor stands in this program, told by identity; `None` if it stands nowhere."""
        if "paths" not in self._memo:
            self._memo["paths"] = {id(known): path for path, known in self.named_predictors()}
        paths: dict[int, str] = self._memo["paths"]
        return paths.get(id(predictor))

    def map_predictors(self, function: Callable[[str, Predict], Predict]) -> Self:
        """Return a copy in which every predictor is `function(path, predictor)`."""

        def inside(path: str, part: Program) -> Program:
            return part.map_predictors(lambda inner, old: function(path if old is part else f"{path}.{inner}", old))

        return _restored(type(self), {name: mapped(value, name, Program, inside) for name, value in vars(self).items()})

    def _with(self, what: str, by_path: Mapping[str, T], change: Callable[[Predict, T], Predict]) -> Self:
        known = [path for path, _ in self.named_predictors()]
        for path in by_path:
            if path not in known:
                paths = ", ".join(known) or "none"
                raise ProgramError(f"{what}: {type(self).__name__} has no predictor {path!r}; its predictors: {paths}")
        return self.map_predictors(lambda path, old: change(old, by_path[path]) if path in by_path else old)

    def _only_path(self, what: str) -> str:
        known = [path for path, _ in self.named_predictors()]
        if len(known) != 1:
            paths = ", ".join(known) or "none"
            raise ProgramError(
                f"{what}: {type(self).__name__} has {len(known)} predictors ({paths}); give each its own, by path"
            )
        return known[0]

    def with_demos(self, demos: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Mapping[str, Any]]]) -> Self:
        """Return a copy with these demos.

        Args:
            demos: The demos of the only predictor, or of several by path. Each holds every field of the signature;
                further ones are left out.

        Raises:
            ProgramError: If a path is unknown, or one is needed.
            SignatureError: If a demo lacks a field or has an invalid value.
        """
        by_path: Any = {self._only_path("with_demos"): demos} if not isinstance(demos, Mapping) else cast("Any", demos)
        return self._with("with_demos", by_path, lambda old, new: old.replace_demos(new))

    def with_instructions(self, instructions: str | Mapping[str, str]) -> Self:
        """Return a copy with these instructions: one text for the only predictor, or several by path.

        Raises:
            ProgramError: If a path is unknown, or one is needed.
            SignatureError: If a text is empty.
        """
        by_path = (
            instructions if isinstance(instructions, Mapping) else {self._only_path("with_instructions"): instructions}
        )
        change: Callable[[Predict, str], Predict]
        change = lambda old, new: old.replace(signature=old.signature.with_instructions(new))  # noqa: E731 - typed so
        return self._with("with_instructions", by_path, change)

    def with_client(self, client: str) -> Self:
        """Return a copy in which every predictor asks the client of this name.

        Raises:
            ProgramError: If it is no name.
        """
        return self.map_predictors(lambda _, old: old.configured(client=client))

    def with_config(self, **config: Any) -> Self:
        """Return a copy with other parameters in every predictor.

        Args:
            config: `temperature`, `max_tokens`, `max_reasks`, `rollout`, `adapter`, `client`.

        Raises:
            ProgramError: If a parameter is unknown, or a value out of range.
        """
        return self.map_predictors(lambda _, old: old.configured(**config))

    # -- state -----------------------------------------------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """Return all that can be learned, as JSON data: for each predictor its contract, demos and parameters."""
        return {
            "program": type(self).__name__,
            "predictors": {path: predictor.dump_predictor() for path, predictor in self.named_predictors()},
        }

    def content_hash(self) -> str:
        """Return a hash of all that a file would hold of it, the same in every process."""
        if "hash" not in self._memo:
            self._memo["hash"] = files.content_hash(state.dumped(self))
        return str(self._memo["hash"])

    def save(self, path: str | os.PathLike[str], *, lineage: Lineage | None = None) -> None:
        """Write it to a JSON file; see `otpy.programs.save`."""
        state.saved(self, path, lineage)

    def load(self, path: str | os.PathLike[str], *, verify: bool = True) -> Self:
        """Return a copy with the state of a JSON file, otpy's or DSPy's; see `otpy.programs.load`."""
        return state.loaded(self, path, verify=verify)

    def render(self) -> str:
        """Return the tree of sub-programs as text.

        Example:
            >>> from otpy.programs import ChainOfThought
            >>> print(ChainOfThought("question -> answer").render())
            ChainOfThought
            └─ predict  Predict  question: str -> reasoning: str, answer: str
        """
        return "\n".join([self._line(), *self._branches()])

    def _line(self) -> str:
        return type(self).__name__

    def _branches(self) -> Iterator[str]:
        children = list(self._children())
        for number, (path, part) in enumerate(children, 1):
            here, below = ("├─ ", "│  ") if number < len(children) else ("└─ ", "   ")
            yield f"{here}{path}  {part._line()}"  # noqa: SLF001 - a program too
            yield from (below + line for line in part._branches())  # noqa: SLF001 - a program too


@functools.cache
def _signature_of(cls: type[Program]) -> inspect.Signature:
    if not hasattr(cls, "forward"):
        then = ": make `aforward` an `async def forward`" if hasattr(cls, "aforward") else ""
        raise ProgramError(f"{cls.__name__} has no forward(…), so there is nothing to call{then}")
    return inspect.signature(cls.forward)


def _restored(cls: type[P], content: Mapping[str, Any]) -> P:
    return object.__new__(cls)._sealed_with(content)  # noqa: SLF001 - our own class


P = TypeVar("P", bound=Program)
_METHODS = frozenset(name for name in dir(Program) if not name.startswith("_")) - {"input_names"}
"""What every program is able to do; a part cannot have such a name."""
