"""The strategy `simple_one_for_one`: any number of children, all started from one template.

Source: `supervisor.erl` (OTP 26).
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from otpy.actors import SHUTDOWN, Ref, Stop
from otpy.errors import InvalidChildSpec
from otpy.supervisors.brood import Answer, Brood
from otpy.supervisors.child import Child
from otpy.supervisors.requests import Counts
from otpy.supervisors.strategy import AutoShutdown, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.actors import ChildSpec, GenServer, Process
    from otpy.supervisors.intensity import Intensity

__all__ = ["Simple"]


class Simple(Brood):
    """The children of a `simple_one_for_one` supervisor.

    Args:
        owner: The supervisor.
        specs: One child spec, the template; its `start` is called with the arguments of `start_child` appended.
        intensity: The supervisor's restart intensity.
        auto_shutdown: Whether the end of significant children ends the supervisor; they are all significant, or none.

    Raises:
        InvalidChildSpec: If there is not exactly one spec.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer
        >>> from otpy.supervisors import Supervisor
        >>> from otpy.supervisors.strategy import SIMPLE_ONE_FOR_ONE
        >>> class Session(GenServer):
        ...     def init(self, host, user):
        ...         self.greeting = f"{user}@{host}"
        ...     def handle_call(self, request, caller):
        ...         return self.greeting
        >>> async def main():
        ...     async with Supervisor([Session.child_spec("here")], strategy=SIMPLE_ONE_FOR_ONE) as sessions:
        ...         ann, bob = await sessions.start_child("ann"), await sessions.start_child(user="bob")
        ...         print(await ann.call("greet"), await bob.call("greet"))
        ...         await sessions.terminate_child(ann)
        ...         bob.exit("kill")
        ...         await sessions.settled()
        ...         print(await (await sessions.which_children())[0].ref.call("greet"), await sessions.count_children())
        >>> asyncio.run(main())
        ann@here bob@here
        bob@here Counts(specs=1, active=1, supervisors=0, workers=1)
    """

    def __init__(
        self, owner: GenServer, specs: Sequence[ChildSpec], intensity: Intensity, auto_shutdown: AutoShutdown
    ) -> None:
        """Keep the template."""
        super().__init__(owner, Strategy.SIMPLE_ONE_FOR_ONE, intensity)
        if len(specs) != 1:
            raise InvalidChildSpec(
                "children", [spec.id for spec in specs], "exactly one child spec under simple_one_for_one, the template"
            )
        self.template = specs[0]
        self.auto_shutdown = auto_shutdown

    async def start_more(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        """Start a child from the template, with further arguments; a restart gets the same ones."""
        answer = self.start(Child(self.template, partial(self.template.start, *args, **kwargs)))
        return await answer if inspect.iscoroutine(answer) else answer

    def counts(self) -> Counts:
        """Say what `count_children` says: there is one spec, however many children."""
        counts = super().counts()
        return Counts(1, counts.active, counts.supervisors, counts.workers)

    def gone(self, child: Child) -> Stop | None:
        """End the supervisor with the first, or with the last, significant child."""
        if not child.spec.significant or self.auto_shutdown is AutoShutdown.NEVER:
            return None
        if self.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT and len(self) > 0:
            return None
        return Stop(SHUTDOWN)

    async def administer(self, action: str, child: object) -> Answer:
        """Do something with a child, known by its reference; a dead process is as good as a terminated child."""
        process: Process | None = child.process if isinstance(child, Ref) else None
        if action == "get_childspec":
            known = child == self.template.id if process is None else process in self._children or not process.alive
            return ("ok", self.template) if known else "not_found"
        if action != "terminate" or process is None:
            return "simple_one_for_one"
        found = self.terminate(process)
        if not isinstance(found, bool):
            found = await found
        return ("ok", None) if found or not process.alive else "not_found"
