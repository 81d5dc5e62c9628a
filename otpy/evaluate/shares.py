"""What all nodes may take together, and which part of it each may: limits per minute, and hard caps. Pure.

`Shares` divides what may flow: every node has its part of a limit per minute. `Grants` divides what may be spent: a
node gets a slice of a cap, which is set aside here before the node knows of it, and asks for more when it needs it. So
the nodes together never have more than there is. A slice whose node was lost counts as spent: nobody can say that it
was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from otpy.clients.labels import Labels  # noqa: TC001 - a field's type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.budget import Cap
    from otpy.config.settings import Settings

__all__ = ["CapKey", "Grants", "Shares", "bounds_of"]

SLICES: Final = 8
"""A node is given this part of its fair share of what is left of a cap, or what it needs, if that is more."""
PER_MINUTE: Final = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute")

N = TypeVar("N")


def bounds_of(settings: Settings) -> dict[str, int]:
    """Return what the clients' requests are bounded by, together: by the paths of the settings.

    Those that are kept at a Redis server are shared there already, and a local model is one on each node.

    Args:
        settings: The settings.

    Example:
        >>> from otpy.config import Settings
        >>> from otpy.evaluate.shares import bounds_of
        >>> client = {"model": "openai/gpt-x", "requests_per_minute": 600, "max_concurrency": 50}
        >>> bounds_of(Settings.load(None, {}, {"clients": {"default": client}}))
        {'clients.default.max_concurrency': 50, 'clients.default.requests_per_minute': 600}
    """
    found: dict[str, int] = {}
    for name, client in settings.clients.items():
        if client.is_local:
            continue
        limits = () if client.limits_storage is not None else PER_MINUTE
        for limit in ("max_concurrency", *limits):
            if (bound := getattr(client, limit)) is not None:
                found[f"clients.{name}.{limit}"] = bound
    return found


class Shares(Generic[N]):
    """Divides bounds among nodes: equally, and never more than there is, also while the parts change.

    A part grows only when others have said that theirs is smaller.

    Args:
        bounds: What is to be divided, by name.

    Example:
        >>> from otpy.evaluate.shares import Shares
        >>> shares = Shares[str]({"requests": 100})
        >>> shares.join("a"), shares.offer("a"), shares.join("b"), shares.offer("b")
        (None, {'requests': 100}, None, {'requests': 0})
        >>> shares.took("a"), shares.offer("a"), shares.offer("b"), shares.took("a"), shares.offer("b")
        (None, {'requests': 50}, {'requests': 0}, None, {'requests': 50})
    """

    def __init__(self, bounds: Mapping[str, int]) -> None:
        """Divide among nobody yet."""
        self.bounds = dict(bounds)
        self._told: dict[N, dict[str, int]] = {}  # what each was told last
        self._held: dict[N, dict[str, int]] = {}  # the most it may go by

    def join(self, node: N) -> None:
        """Count a node in; it has nothing yet.

        Args:
            node: What it is called.
        """
        self._told[node], self._held[node] = {}, {}

    def lost(self, node: N) -> None:
        """Count a node out: the others may have its part.

        Args:
            node: The node.
        """
        self._told.pop(node, None)
        self._held.pop(node, None)

    def offer(self, node: N) -> dict[str, int]:
        """Return a node's part of each bound, to be told to it; 0 if there is none for it.

        Args:
            node: The node.
        """
        places = list(self._told)
        told, held = self._told[node], self._held[node]
        for name, bound in self.bounds.items():
            whole, rest = divmod(bound, len(places))
            fair = whole + (places.index(node) < rest)
            others = sum(parts.get(name, 0) for other, parts in self._held.items() if other != node)
            told[name] = max(min(fair, bound - others), 0)
            held[name] = max(held.get(name, 0), told[name])
        return dict(told)

    def took(self, node: N) -> None:
        """Know that a node goes by what it was offered last.

        Args:
            node: The node.
        """
        if node in self._told:
            self._held[node] = dict(self._told[node])


class CapKey(NamedTuple):
    """Which cap: a cap's kind and whose requests it is on."""

    kind: str
    where: Labels

    @classmethod
    def of(cls, cap: Cap) -> CapKey:
        """Return a cap's key."""
        return cls(cap.kind, cap.where)


@dataclass(slots=True)
class _Pot(Generic[N]):
    whole: Any
    # each live node's limit: all that it has spent, and may spend
    granted: dict[N, Any] = field(default_factory=dict[N, Any])
    spent: dict[N, Any] = field(default_factory=dict[N, Any])
    # what a node needs, and who may still give back
    claims: dict[N, tuple[Any, set[N]]] = field(default_factory=dict[N, tuple[Any, set[N]]])
    gone: Any = 0  # the limits of the nodes that were lost
    untold: Any = 0  # what those may have spent beyond what they have told

    @property
    def free(self) -> Any:
        return self.whole - self.gone - sum(self.granted.values())


class Grants(Generic[N]):
    """Divides hard caps among nodes, in slices.

    Args:
        left: How much of each cap may be spent by all nodes together.

    Example:
        >>> from otpy.clients.labels import ANYBODY
        >>> from otpy.evaluate.shares import CapKey, Grants
        >>> tokens = CapKey("tokens", ANYBODY)
        >>> grants = Grants[str]({tokens: 1_000})
        >>> grants.join("a"), grants.join("b")
        (None, None)
        >>> grants.needs("a", tokens, 400)
        >>> grants.settle("a"), grants.limits("a")[tokens] >= 400
        ([], True)
    """

    def __init__(self, left: Mapping[CapKey, Any]) -> None:
        """Hold everything."""
        self._pots: dict[CapKey, _Pot[N]] = {key: _Pot(amount) for key, amount in left.items()}
        self._nodes: dict[N, None] = {}

    def join(self, node: N) -> None:
        """Count a node in, with a first slice.

        Args:
            node: What it is called.
        """
        self._nodes[node] = None
        for pot in self._pots.values():
            pot.granted[node] = self._slice(pot)
            pot.spent[node] = 0

    def lost(self, node: N) -> None:
        """Count a node out: what it was given counts as spent.

        Args:
            node: The node.
        """
        self._nodes.pop(node, None)
        for pot in self._pots.values():
            granted, spent = pot.granted.pop(node, 0), pot.spent.pop(node, 0)
            pot.gone += granted
            pot.untold += granted - spent
            pot.claims.pop(node, None)
            for _, others in pot.claims.values():
                others.discard(node)

    def limits(self, node: N) -> dict[CapKey, Any]:
        """Return how much a node may spend in all, under each cap.

        Args:
            node: The node.
        """
        return {key: pot.granted[node] for key, pot in self._pots.items()}

    def needs(self, node: N, key: CapKey, limit: Any) -> None:
        """Know that a node needs more.

        Args:
            node: The node.
            key: Of which cap.
            limit: How much it would have to be allowed in all.
        """
        pot = self._pots[key]
        known = pot.claims.get(node)
        if limit <= pot.granted[node]:
            pot.claims.pop(node, None)
        elif known is not None:
            pot.claims[node] = limit, known[1]
        else:
            others = set[N]() if pot.free >= limit - pot.granted[node] else self._nodes.keys() - {node}
            pot.claims[node] = limit, others

    def asked_back(self, node: N) -> bool:
        """Return whether a node is to give back what it does not need, since another one does.

        Args:
            node: The node.
        """
        return any(node in others for pot in self._pots.values() for _, others in pot.claims.values())

    def gave_back(self, node: N, floors: Mapping[CapKey, Any]) -> None:
        """Know that a node goes by lower limits from now on.

        Args:
            node: The node.
            floors: The limits.
        """
        for key, floor in floors.items():
            pot = self._pots[key]
            pot.granted[node] = min(pot.granted[node], floor)
            for _, others in pot.claims.values():
                others.discard(node)

    def settle(self, node: N) -> list[CapKey]:
        """Give a node what it needs, as far as that is known to be there; see `limits`.

        Args:
            node: The node.

        Returns:
            The caps of which it has all there is now, and it is too little: what does not fit is to be refused.
        """
        refused: list[CapKey] = []
        for key, pot in self._pots.items():
            if (claim := pot.claims.get(node)) is None:
                continue
            short = claim[0] - pot.granted[node]
            if short <= pot.free:
                pot.granted[node] += min(max(short, self._slice(pot)), pot.free)
            elif not claim[1]:
                pot.granted[node] += max(pot.free, 0)
                refused.append(key)
            else:
                continue
            del pot.claims[node]
        return refused

    def spent(self, node: N, key: CapKey, amount: Any) -> None:
        """Know what a node has spent so far.

        Args:
            node: The node.
            key: Under which cap.
            amount: How much.
        """
        pot = self._pots[key]
        pot.spent[node] = amount
        pot.granted[node] = max(pot.granted[node], amount)  # what was in flight took more than was set aside for it

    def untold(self, key: CapKey) -> Any:
        """Return what lost nodes may have spent beyond what they have told.

        Args:
            key: Under which cap.
        """
        return self._pots[key].untold

    @property
    def pressed(self) -> bool:
        """Whether a node waits for what others may give back."""
        return any(pot.claims for pot in self._pots.values())

    def _slice(self, pot: _Pot[N]) -> Any:
        part = max(pot.free, 0) / (SLICES * max(len(self._nodes), 1))
        return part if isinstance(part, Decimal) else math.floor(part)
