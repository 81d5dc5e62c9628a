"""`KNN`: the examples that are most like a question.

Source: k nearest neighbours (Fix and Hodges 1951) over embeddings, as Liu et al. 2022, "What Makes Good In-Context
Examples for GPT-3?", choose demos; the name and the form of the texts are DSPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.clients.running import running
from otpy.errors import ConfigError, ProgramError
from otpy.programs.embedder import Embedder
from otpy.retrieval.embeddings import Embeddings
from otpy.retrieval.passage import Passage, check_k

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.retrieval.embedder import EmbedderProtocol
    from otpy.signatures import Example

__all__ = ["KNN"]


class KNN:
    """Finds the examples whose inputs are closest to some inputs: a value, like the programs.

    Nothing is embedded when it is made; the first call embeds the trainset, once, whoever else asks meanwhile.

    Args:
        k: How many examples, at most.
        trainset: The examples, each with its inputs marked (`with_inputs`).
        embedder: What makes vectors of texts.

    Raises:
        ProgramError: If `k` is out of range, or an example does not say what its inputs are.
        ConfigError: If the embedder is none.

    Example:
        >>> import asyncio
        >>> from otpy.programs.knn import KNN
        >>> from otpy.retrieval import FunctionEmbedder
        >>> from otpy.signatures import Example
        >>> trainset = [Example(q=q, a=a).with_inputs("q") for q, a in [("banana", "fruit"), ("kiwi", "bird")]]
        >>> vowels = FunctionEmbedder(lambda texts: [[text.count(v) for v in "aeiou"] for text in texts], name="vowels")
        >>> asyncio.run(KNN(1, trainset, vowels).acall(q="ananas"))
        [Example(q='banana', a='fruit')]
    """

    __slots__ = ("_index", "embedder", "k", "trainset")

    k: int
    trainset: tuple[Example, ...]
    embedder: EmbedderProtocol

    def __init__(self, k: int, trainset: Iterable[Example], embedder: EmbedderProtocol | None = None) -> None:
        """Check everything."""
        try:
            check_k(k)
        except ConfigError as error:
            raise ProgramError(str(error)) from None
        self.k, self.trainset = k, tuple(trainset)
        self.embedder = Embedder() if embedder is None else embedder
        passages: list[Passage] = []
        for number, example in enumerate(self.trainset, 1):
            if example.input_names is None:
                raise ProgramError(f"example {number} does not say what its inputs are; call .with_inputs('…') on it")
            passages.append(Passage(_text(example.inputs()), id=str(number - 1)))
        self._index = Embeddings(passages, self.embedder)

    def __call__(self, **inputs: Any) -> list[Example]:
        """Return the closest examples and wait for them, in synchronous code.

        Args:
            inputs: What they should be like.

        Raises:
            NoApplication: If no application is running.
            ClientError: Or whatever else the embedder raises.
        """
        return running().run(self.acall(**inputs))

    async def acall(self, **inputs: Any) -> list[Example]:
        """Return the closest examples, the closest first, and of equals the one that comes first in the trainset."""
        found = await self._index.search(_text(inputs), self.k)
        return [self.trainset[int(passage.id)] for passage in found]

    def __eq__(self, other: object) -> bool:
        """Whether `k`, the trainset and the embedder's name are the same."""
        return self is other or (
            isinstance(other, KNN)
            and (self.k, self.trainset, self.embedder.name) == (other.k, other.trainset, other.embedder.name)
        )

    def __hash__(self) -> int:
        """By content."""
        return hash((self.k, self._index))

    def __repr__(self) -> str:
        """Print `k`, and how many examples there are."""
        return f"KNN({self.k}, {len(self.trainset)} examples, {self.embedder.name!r})"


def _text(inputs: Mapping[str, Any]) -> str:
    return " | ".join(f"{name}: {value}" for name, value in inputs.items())
