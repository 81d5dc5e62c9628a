"""`Retrieve`: passages for a query, as a program; and `RAG`: an answer from what was found."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

from otpy.actors.names import whereis
from otpy.errors import ConfigError, NotRegistered, ProgramError
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.retrieval.fusion import filters
from otpy.retrieval.passage import Passage, Retriever, check_k, passing
from otpy.signatures import Prediction

if TYPE_CHECKING:
    from otpy.retrieval.passage import Where
    from otpy.signatures import Signature

__all__ = ["RAG", "Retrieve"]

_FOUND = ("passages", "ids", "scores")


class Retrieve(Program):
    """Finds the best passages for a query.

    Its prediction has `passages` (their texts), `ids` and `scores`, the best first.

    Args:
        retriever: Where to look: a `Retriever`, such as a `BM25`, or the name of a process that keeps one, such as an
            `Agent` that an application of yours supervises.
        k: How many passages, at most.
        where: Which passages are meant: metadata they must have, or a function of a `Passage`.

    Raises:
        ProgramError: If the retriever is none, cannot filter and should, or a parameter is out of range.

    Example:
        >>> import asyncio
        >>> from otpy.programs.retrieve import Retrieve
        >>> from otpy.retrieval import BM25
        >>> retrieve = Retrieve(BM25(["A cat sat on a mat.", "Shares fell."]), k=1)
        >>> asyncio.run(retrieve.acall(query="cat")).passages
        ['A cat sat on a mat.']
    """

    retriever: Retriever | str
    k: int
    where: Where | None

    def __init__(self, retriever: Retriever | str, *, k: int = 3, where: Where | None = None) -> None:
        """Check everything."""
        if not (retriever and isinstance(retriever, str)):
            _check(retriever, where)
        try:
            check_k(k)
            passing(where)
        except ConfigError as error:
            raise ProgramError(str(error)) from None
        self.retriever, self.k, self.where = retriever, k, where

    async def forward(self, query: str) -> Prediction:
        """Search."""
        found = await self.find(query)
        return Prediction(
            passages=[passage.text for passage in found],
            ids=[passage.id for passage in found],
            scores=[passage.score for passage in found],
        )

    async def find(self, query: str) -> tuple[Passage, ...]:
        """Return the passages themselves, with their metadata.

        Args:
            query: What is looked for.

        Raises:
            NotRegistered: If there is no process of the retriever's name.
            ProgramError: If that keeps no retriever.
        """
        retriever = self.retriever if not isinstance(self.retriever, str) else await _kept(self.retriever)
        if self.where is None:
            return await retriever.search(query, self.k)
        _check(retriever, self.where)
        searching: Any = retriever  # one that filters, as has just been checked
        found: tuple[Passage, ...] = await searching.search(query, self.k, where=self.where)
        return found

    def _line(self) -> str:
        return f"Retrieve  {self.k} from {self.retriever!r}"


class RAG(Program):
    """Retrieval-augmented generation: finds passages for a question and has it answered from them.

    Its prediction has the outputs of the signature, and the `passages`, `ids` and `scores` that `Retrieve` found.

    Args:
        retriever: As for `Retrieve`, or a `Retrieve`.
        signature: As for `Predict`, with an input for the passages (a `str`, in which they are numbered, or a
            `list[str]`) and one that is searched for; or a program with these inputs, as
            `ChainOfThought("context, question -> response")`.
        k: How many passages, at most.
        where: Which passages are meant, as for `Retrieve`.
        context: The input that gets the passages.
        query: The input that is searched for.
        config: As for `Predict`, if a signature is given.

    Raises:
        ProgramError: If an input is missing, an output has the name of something that is found, or a parameter is out
            of range.
        SignatureError: If the signature cannot be read.

    Example:
        >>> from otpy.programs.retrieve import RAG
        >>> from otpy.retrieval import BM25
        >>> print(RAG(BM25(["A cat sat on a mat."]), k=1).render())
        RAG
        ├─ retrieve  Retrieve  1 from BM25(1 passages)
        └─ respond  Predict  context: str, question: str -> response: str
    """

    retrieve: Retrieve
    respond: Program
    context: str
    query: str

    def __init__(  # noqa: PLR0913 - each is a part of the composition
        self,
        retriever: Retriever | Retrieve | str,
        signature: type[Signature] | str | Program = "context, question -> response",
        *,
        k: int | None = None,
        where: Where | None = None,
        context: str = "context",
        query: str = "question",
        **config: Any,
    ) -> None:
        """Check that it fits together."""
        if isinstance(retriever, Retrieve):
            if k is not None or where is not None:
                raise ProgramError("RAG: k and where are those of the Retrieve that is given; set them there")
            self.retrieve = retriever
        else:
            self.retrieve = Retrieve(retriever, k=3 if k is None else k, where=where)
        if isinstance(signature, Program):
            if config:
                raise ProgramError(f"RAG: {', '.join(config)}: {type(signature).__name__} has its own parameters")
            self.respond = signature
        else:
            self.respond = Predict(signature, **config)
        self.context, self.query = context, query
        names = self.respond.input_names
        for name in (context, query):
            if names is not None and name not in names:
                raise ProgramError(f"RAG: the signature has no input {name!r}; its inputs: {', '.join(names)}")
        contract = _contract(self.respond)
        if contract is not None:
            _as_context((), contract, context)
            taken = [name for name in _FOUND if name in contract.output_fields]
            if taken:
                raise ProgramError(f"RAG: an output is called {taken[0]!r}, as what is found; call it something else")

    async def forward(self, **inputs: Any) -> Prediction:
        """Find and answer."""
        if self.context in inputs:
            raise ProgramError(f"RAG finds {self.context!r} itself; call program.respond to give it")
        if not isinstance(inputs.get(self.query), str):
            raise ProgramError(f"RAG searches for {self.query!r}, which is {inputs.get(self.query)!r:.80}; give a text")
        found = await self.retrieve.acall(query=inputs[self.query])
        context = _as_context(found.passages, _contract(self.respond), self.context)
        answered = await self.respond.acall(**{self.context: context, **inputs})
        return answered.copy(**found.to_dict())

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The inputs of the signature but for the one that gets the passages."""
        names = self.respond.input_names
        return None if names is None else tuple(name for name in names if name != self.context)


def _check(retriever: object, where: object) -> None:
    if not isinstance(retriever, Retriever):
        raise ProgramError(
            f"{retriever!r:.80} is no retriever: give an object with `async def search(query, k)`, such as a BM25, or"
            " the name of a process that keeps one"
        )
    if where is not None and not filters(retriever):
        raise ProgramError(f"where={where!r:.80}: {retriever!r:.80} cannot filter, its search has no `where`")


async def _kept(name: str) -> Retriever:
    """The retriever that a process keeps; the process hands it over, and is free while it is searched."""
    keeper: Any = whereis(name) or Context().run(whereis, name)  # yours may have been started outside of an application
    if keeper is None:
        raise NotRegistered(name, message=f"no process is registered as {name!r}; Retrieve({name!r}) looks there")
    if not hasattr(keeper, "get"):
        raise ProgramError(f"the process {name!r} keeps no retriever: start it with Agent.child_spec(…, name={name!r})")
    kept = await keeper.get(_itself)
    _check(kept, None)
    return cast("Retriever", kept)


def _itself(state: Any) -> Any:
    return state


def _contract(program: Program) -> type[Signature] | None:
    """The signature of a program that has a single one."""
    return getattr(program, "signature", None)


def _as_context(passages: Any, contract: type[Signature] | None, field: str) -> Any:
    """The passages as the field takes them."""
    kind: Any = str if contract is None else contract.input_fields[field].annotation
    if kind is str:
        return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(passages, 1))
    if get_origin(kind) is list and get_args(kind) in {(str,), (Any,)}:
        return list(passages)
    raise ProgramError(f"RAG: the input {field!r} has the type {kind}; allowed: str, list[str]")
