"""`PartitionSupervisor`: one child spec, several processes, and each key always at the same one.

For a process that has become a bottleneck and whose work splits by key. Source: Elixir's `PartitionSupervisor`.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from otpy.actors import ChildSpec, Ref
from otpy.errors import InvalidChildSpec, SupervisionError
from otpy.supervisors.ref import SupervisorRef
from otpy.supervisors.strategy import AutoShutdown, Strategy
from otpy.supervisors.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PartitionSupervisor", "PartitionSupervisorRef", "partition_of"]


def partition_of(key: object, partitions: int) -> int:
    """Return the partition of a key, the same in every process, on every machine, in every version of Python.

    Integers take turns (`abs(key) % partitions`, as in Elixir); everything else goes by its CRC-32. Keys that are
    equal are in the same partition.

    Args:
        key: A `str`, `int`, `bytes`, `None`, or a tuple of those.
        partitions: How many there are, at least 1.

    Raises:
        TypeError: If the key is anything else.

    Example:
        >>> from otpy.supervisors.partition import partition_of
        >>> partition_of("alice", 8), partition_of(("user", 7), 8), partition_of(10, 8)
        (6, 2, 2)
    """
    if isinstance(key, int):
        return abs(key) % partitions
    return zlib.crc32(_encoded(key, key)) % partitions


def _encoded(key: object, whole: object) -> bytes:
    """Return bytes that are different for keys that are, whatever they are made of."""
    match key:
        case str():
            return b"s" + key.encode("utf-8", "surrogatepass")
        case bytes():
            return b"b" + key
        case int():
            return b"i%d" % key
        case None:
            return b"n"
        case tuple():
            parts = [_encoded(part, whole) for part in cast("tuple[object, ...]", key)]
            return b"t" + b"".join(b"%d:%b" % (len(part), part) for part in parts)
        case _:
            raise TypeError(
                f"{whole!r} cannot be routed: {type(key).__name__} has no hash that is the same everywhere; "
                f"use a str, an int, bytes, None, or a tuple of those"
            )


class PartitionSupervisorRef(SupervisorRef):
    """A reference to a partition supervisor; routing needs no message, so it works from any thread."""

    __slots__ = ()

    @property
    def partitions(self) -> int:
        """How many partitions there are; they are the ids of the children, from 0."""
        return self.process.actor.partitions  # type: ignore[attr-defined, no-any-return]

    def partition_for(self, key: object) -> Ref[Any]:
        """Return the process that is responsible for a key now; after a restart it is another one.

        Args:
            key: A `str`, `int`, `bytes`, `None`, or a tuple of those.

        Raises:
            TypeError: If the key is anything else.
            NotRegistered: If the partition has no process at the moment.
        """
        return self.child(partition_of(key, self.partitions))

    async def start_child(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - refused, whatever they are
        """Refuse: there are as many children as partitions.

        Raises:
            SupervisionError: Always.
        """
        raise SupervisionError(f"{self} has {self.partitions} partitions and takes no further child")

    async def delete_child(self, id: object) -> NoReturn:  # noqa: A002 - OTP's word
        """Refuse: keys belong to every partition.

        Raises:
            SupervisionError: Always.
        """
        raise SupervisionError(f"partition {id!r} of {self} cannot be deleted; terminate_child stops it")


class PartitionSupervisor(Supervisor):
    """A supervisor of as many processes of one kind as there are partitions.

    A partition that dies is restarted in its place: its keys are routed to its successor, and no other key moves.

    Args:
        child: The spec of every partition, or a function from the partition's number, from 0, to its spec. The
            partition's number is its id, whatever the spec says.
        partitions: How many; by default as many as the machine has processors.
        strategy: `"one_for_one"`, `"one_for_all"` or `"rest_for_one"`.
        max_restarts: As for `Supervisor`.
        max_seconds: As for `Supervisor`.
        auto_shutdown: As for `Supervisor`.

    Raises:
        InvalidChildSpec: If any of this is not allowed; nothing has been started then.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer
        >>> from otpy.supervisors.partition import PartitionSupervisor
        >>> class Counter(GenServer):
        ...     def init(self, partition):
        ...         self.partition, self.counts = partition, {}
        ...     def handle_call(self, key, caller):
        ...         self.counts[key] = self.counts.get(key, 0) + 1
        ...         return self.partition, self.counts[key]
        >>> async def main():
        ...     async with PartitionSupervisor(Counter.child_spec, partitions=4) as counters:
        ...         for name in ("alice", "bob", "alice"):
        ...             print(name, await counters.partition_for(name).call(name))
        >>> asyncio.run(main())
        alice (2, 1)
        bob (0, 1)
        alice (2, 2)
    """

    ref_class: ClassVar[type[Ref[Any]]] = PartitionSupervisorRef

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> PartitionSupervisorRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> PartitionSupervisorRef: ...  # noqa: D102

    def __init__(  # noqa: PLR0913 - OTP's options
        self,
        child: ChildSpec | Callable[[int], ChildSpec],
        *,
        partitions: int | None = None,
        strategy: Strategy | str = Strategy.ONE_FOR_ONE,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown | str = AutoShutdown.NEVER,
    ) -> None:
        """Check everything; `start_link`, or entering the block, starts it."""
        self.partitions = (os.cpu_count() or 1) if partitions is None else partitions
        if not isinstance(self.partitions, int) or isinstance(self.partitions, bool) or self.partitions < 1:
            raise InvalidChildSpec("partitions", partitions, "an int >= 1, or None for one a processor")
        if strategy == Strategy.SIMPLE_ONE_FOR_ONE:
            raise InvalidChildSpec("strategy", strategy, "'one_for_one', 'one_for_all', 'rest_for_one'")
        super().__init__(
            [_partition(child, number) for number in range(self.partitions)],
            strategy=strategy,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            auto_shutdown=auto_shutdown,
        )


def _partition(child: ChildSpec | Callable[[int], ChildSpec], number: int) -> ChildSpec:
    spec = child(number) if callable(child) and not isinstance(child, type) else child
    if not isinstance(spec, ChildSpec):
        raise InvalidChildSpec("child", spec, "a ChildSpec, or a function from a number to one, e.g. Server.child_spec")
    return spec.but(id=number)
