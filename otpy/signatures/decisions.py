"""The outputs that are decisions: that their probabilities are asked for, and read from an answer's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.types.decision import ALTERNATIVES, Decision, weighed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.lm import TokenLogprob
    from otpy.signatures.signature import SignatureMeta

__all__ = ["logprobs_for", "weigh"]


def logprobs_for(signature: SignatureMeta) -> int | None:
    """Return how many alternatives a token to ask for, as `LMRequest.logprobs`; `None` if no output is a decision.

    Example:
        >>> from otpy.signatures import Signature
        >>> from otpy.signatures.decisions import logprobs_for
        >>> logprobs_for(Signature("query -> urgent: Decision[bool]")), logprobs_for(Signature("query -> urgent: bool"))
        (20, None)
    """
    decides = (
        field.kind is not None and issubclass(field.kind, Decision) for field in signature.output_fields.values()
    )
    return ALTERNATIVES if any(decides) else None


def weigh(outputs: Mapping[str, Any], text: str, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return outputs whose decisions have the probabilities that the tokens of the answer tell.

    Args:
        outputs: What was read from the answer.
        text: The answer.
        tokens: Its tokens, each with its alternatives; with none, nothing changes.

    Example:
        >>> from math import log
        >>> from otpy.lm import TokenLogprob
        >>> from otpy.signatures import Signature
        >>> from otpy.signatures.decisions import weigh
        >>> spam = Signature("mail -> spam: Decision[bool]")
        >>> text, likely = '{"spam": true}', (("true", log(0.9)), ("false", log(0.1)))
        >>> tokens = (TokenLogprob('{"spam": ', 0.0), TokenLogprob("true", log(0.9), likely), TokenLogprob("}", 0.0))
        >>> weigh(spam.read_outputs(text), text, tokens)["spam"].probability
        0.9
    """
    decisions: dict[str, Decision[Any]] = {name: one for name, one in outputs.items() if isinstance(one, Decision)}
    return {**outputs, **{name: weighed(one, name, text, tokens) for name, one in decisions.items()}}
