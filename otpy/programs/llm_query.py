"""The models that code in a sandbox may ask: `llm_query` and `llm_query_batched`, with a budget for both together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.history import over
from otpy.clients.running import running
from otpy.errors import ClientError, LMContextWindowExceeded, LMRefusal, LMRequestInvalid
from otpy.lm import LMRequest, Message, Usage
from otpy.programs.trace import asking, spent

if TYPE_CHECKING:
    from otpy.programs.sandboxed import Submission
    from otpy.sandboxes.sandbox import Function

__all__ = ["Queries"]

_ITS_OWN_FAULT: Final = (LMContextWindowExceeded, LMRefusal, LMRequestInvalid)
"""What the code can ask better next time; everything else is no business of the code's."""


class Queries:
    """What one call of a program may ask.

    Args:
        client: The name of the client that is asked.
        rollout: As for `Predict`.
        budget: Prompts, at most.
        parallel: Prompts of a batch that are asked at the same time.
        submission: Who keeps the errors of the client.
    """

    def __init__(self, client: str, rollout: int, *, budget: int, parallel: int, submission: Submission) -> None:
        """Begin with the whole budget."""
        self._client, self._rollout, self._submission = client, rollout, submission
        self._budget = self._left = budget
        self._room = asyncio.Semaphore(parallel)

    def functions(self) -> dict[str, Function]:
        """Return them as functions that code may call."""
        return {"llm_query": self.query, "llm_query_batched": self.batched}

    async def query(self, prompt: str) -> str:
        """Have a model read a prompt.

        Args:
            prompt: A text.

        Raises:
            TypeError: If it is none.
            ValueError: If the budget is used up.
            LMError: If the model will not, or cannot, read this.
            Leave: If no model could be asked.
        """
        self._pay([prompt])
        try:
            return await self._read(prompt)
        except _ITS_OWN_FAULT:
            raise
        except ClientError as error:
            raise self._submission.fail(error) from error

    async def batched(self, prompts: list[str]) -> list[str]:
        """Have a model read prompts, several at the same time; a failure of one is told in its place.

        Args:
            prompts: Texts.

        Raises:
            TypeError: If one is none.
            ValueError: If they are more than the budget has left; then none has been read.
            Leave: If no model could be asked.
        """
        if not isinstance(prompts, list):
            raise TypeError(f"prompts={prompts!r:.100}: a list of texts")
        self._pay(prompts)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read_or_tell(prompt)) for prompt in prompts]
        except ExceptionGroup as several:
            error = several.exceptions[0]
            if isinstance(error, ClientError):
                raise self._submission.fail(error) from error
            raise error from None
        return [task.result() for task in tasks]

    def _pay(self, prompts: list[Any]) -> None:
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise TypeError(f"{prompt!r:.100} is no prompt; a prompt is a text")
        if len(prompts) > self._left:
            raise ValueError(
                f"{len(prompts)} prompts, but {self._left} of {self._budget} are left; go on with what you know"
            )
        self._left -= len(prompts)

    async def _read_or_tell(self, prompt: str) -> str:
        async with self._room:
            try:
                return await self._read(prompt)
            except _ITS_OWN_FAULT as error:  # the others are paid for
                return f"[failed: {error}]"

    async def _read(self, prompt: str) -> str:
        request = LMRequest((Message("user", prompt),), rollout=self._rollout)
        asking(request)
        try:
            response = await running().ask(self._client, request)
        finally:
            over(request)
        spent(Usage() if response.cached else response.usage)
        return response.text
