"""How many tokens a request will take, guessed before it is sent and corrected by what the provider counts. Pure.

No tokenizer: those of the providers are files to be fetched, and differ. Letters are counted, and what a token has of
them is learned from the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otpy.lm import Media, text_of

if TYPE_CHECKING:
    from otpy.lm import LMRequest, Usage

__all__ = ["Estimator", "letters_in"]

LETTERS_PER_TOKEN: Final = 4.0
"""Of English text, by the providers' own rule of thumb."""
MESSAGE_LETTERS: Final = 16
"""What a message costs besides its text."""
MEDIA_TOKENS: Final = 1_000
"""What an image, a sound or a file is taken for, until the provider says better."""
FIRST_OUTPUT: Final = 256
"""Tokens of an answer when nothing is known and nothing bounds it."""
WEIGHT: Final = 0.05
"""How much one answer counts against all that were before it."""


def letters_in(request: LMRequest) -> int:
    """Count the letters that a model will read, what surrounds them included.

    Args:
        request: What is asked.
    """
    count = 0 if request.schema is None else len(request.schema.schema)
    for message in request.messages:
        content = message.content
        count += len(content if isinstance(content, str) else text_of(content)) + MESSAGE_LETTERS
    for tool in request.tools:
        count += len(tool.description) + len(tool.parameters)
    return count


def media_in(request: LMRequest) -> int:
    """Count the images, sounds and files that a model will read.

    Args:
        request: What is asked.
    """
    count = 0
    for message in request.messages:
        if isinstance(message.content, tuple):
            count += sum(isinstance(part, Media) for part in message.content)
    return count


class Estimator:
    """What one model's tokens are like.

    Example:
        >>> from otpy.clients.estimate import Estimator
        >>> from otpy.lm import LMRequest, Message, Usage
        >>> estimator, request = Estimator(), LMRequest((Message("user", "x" * 384),))
        >>> estimator(request)
        (100, 256)
        >>> for _ in range(200):
        ...     estimator.learn(request, Usage(200, 20))
        >>> estimator(request)
        (200, 20)
    """

    def __init__(self) -> None:
        """Know nothing but the rule of thumb."""
        self._letters_per_token = LETTERS_PER_TOKEN
        self._output = float(FIRST_OUTPUT)

    def __call__(self, request: LMRequest, letters: int | None = None) -> tuple[int, int]:
        """Return how many tokens a request will read and write.

        Args:
            request: What is asked.
            letters: What `letters_in` says of it, if that is known.
        """
        count = letters_in(request) if letters is None else letters
        read = round(count / self._letters_per_token) + media_in(request) * MEDIA_TOKENS
        written = self._output if request.max_tokens is None else min(self._output, request.max_tokens)
        return read, round(written) * request.n

    def learn(self, request: LMRequest, usage: Usage, letters: int | None = None) -> None:
        """Take in what a request really took.

        Args:
            request: What was asked.
            usage: What the provider counted; a provider that does not count teaches nothing.
            letters: As above.
        """
        if usage.input_tokens > 0 and not media_in(request):
            seen = (letters_in(request) if letters is None else letters) / usage.input_tokens
            self._letters_per_token += WEIGHT * (min(max(seen, 0.5), 16.0) - self._letters_per_token)
        if usage.output_tokens > 0:
            self._output += WEIGHT * (usage.output_tokens / request.n - self._output)
