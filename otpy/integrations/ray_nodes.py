"""Evaluations on many machines, with Ray: one application a node, in an actor that Ray restarts when it dies.

`run_distributed` is `Evaluate` with another pair of hands: the rows are those of the devset, the result is made as at
home, only who works on the rows are the nodes. It stands here, above the application, since a node needs one of its
own; `otpy.evaluate` is below and may not know of it, and so `Evaluate.run_distributed` finds it by name when it is
called. Nothing but this room imports Ray, and that late.

What travels to a node is the program, the metric, the rows and the settings, by Ray's own pickling; it is the user's
own cluster. Keys travel only if they are in the settings (`api_key=`): else each node looks into its own environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.running import running
from otpy.errors import EvaluationError, OtpyError
from otpy.evaluate.nodes import NodeAway, NodeLost, Orders, Report
from otpy.integrations.many_nodes import ManyNodes
from otpy.integrations.node_tree import Job, NodeTree
from otpy.integrations.sending import packer, sendable, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.budget import Cap
    from otpy.evaluate.evaluate import Rows
    from otpy.evaluate.metrics import Metric
    from otpy.evaluate.nodes import Worker
    from otpy.evaluate.result import EvaluationResult
    from otpy.programs import Program

__all__ = ["RayFleet", "arun_distributed", "run_distributed", "versions"]

LOCAL_NODES: Final = 2
"""Nodes of a Ray that is started here, unless told otherwise."""
RESTARTS: Final = 10
"""How often Ray restarts a node's actor."""
CPUS: Final = 1
"""What an actor claims of its node: a tree is one thread that computes."""


def versions() -> dict[str, str]:
    """Return what has to be the same on the driver and on the nodes: otpy, Python up to its minor, and Ray.

    Example:
        >>> from otpy.integrations.ray_nodes import versions
        >>> list(versions())
        ['otpy', 'Python', 'ray']
    """
    return {
        "otpy": _version("otpy-framework"),
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "ray": _version("ray"),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def check_versions(node: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Refuse a node whose versions are not the driver's.

    Args:
        node: What it is called.
        theirs: Its versions.
        ours: The driver's.

    Raises:
        EvaluationError: If one is different; the message has both.

    Example:
        >>> from otpy.integrations.ray_nodes import check_versions
        >>> check_versions("10.0.0.7", {"otpy": "0.1.0", "Python": "3.12"}, {"otpy": "0.1.0", "Python": "3.11"})
        Traceback (most recent call last):
        otpy.errors.EvaluationError: node 10.0.0.7 has Python 3.12, the driver has Python 3.11: install the same on both
    """
    other = [name for name in ours if theirs.get(name) != ours[name]]
    if other:
        there, here = (", ".join(f"{name} {of.get(name)}" for name in other) for of in (theirs, ours))
        raise EvaluationError(f"node {node} has {there}, the driver has {here}: install the same on both")


# -- on a node ---------------------------------------------------------------------------------------------------------


class NodeActor:
    """What Ray runs on a node; its methods run in threads of the actor."""

    def __init__(self) -> None:
        """Have no tree yet: one that was restarted has lost what it had, and says so."""
        self._tree: NodeTree | None = None
        self._packed = packer(importlib.import_module("ray.cloudpickle"))

    def versions(self) -> dict[str, str]:
        """Return this node's versions."""
        return versions()

    def begin(self, job: bytes, changes: Mapping[str, Any], caps: tuple[Cap, ...]) -> int:
        """Start a tree; one that there was is stopped."""
        if self._tree is not None:
            self._tree.finish()
        self._tree = NodeTree(unpacked(job), changes, caps, lambda row: sendable(row, self._packed))
        return self._tree.start()

    def exchange(self, orders: bytes) -> bytes | None:
        """Take orders and report; `None` if there is no tree to take them."""
        return None if self._tree is None else self._packed(self._tree.exchange(unpacked(orders)))

    def finish(self) -> bytes | None:
        """Stop the tree, and report for the last time."""
        tree, self._tree = self._tree, None
        return None if tree is None else self._packed(tree.finish())


# -- at the driver -----------------------------------------------------------------------------------------------------


class _RayWorker:
    def __init__(self, ray: Any, name: str, actor: Any, job: bytes) -> None:
        self._ray, self.name, self._actor, self._job = ray, name, actor, job
        self._packed = packer(ray.cloudpickle)

    async def begin(self, settings: Mapping[str, Any], caps: tuple[Cap, ...]) -> int:
        check_versions(self.name, await self._called(self._actor.versions), versions())
        try:
            return int(await self._called(self._actor.begin, self._job, dict(settings), caps))
        except OtpyError as error:
            raise EvaluationError(f"node {self.name} cannot begin: {error}") from error

    async def exchange(self, orders: Orders) -> Report:
        return self._there(await self._called(self._actor.exchange, self._packed(orders)))

    async def finish(self) -> Report:
        return self._there(await self._called(self._actor.finish))

    def _there(self, report: bytes | None) -> Report:
        if report is None:
            raise NodeLost("its process died and was restarted", for_good=False)
        return unpacked(report)  # type: ignore[no-any-return]

    async def _called(self, method: Any, *arguments: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return await method.remote(*arguments)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.ActorUnavailableError as error:
            raise NodeAway(_line(error)) from None
        except errors.RayError as error:
            raise NodeLost(_line(error), for_good=True) from None


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class RayFleet:
    """The nodes of a Ray cluster, or of a Ray that is started here.

    Args:
        address: The cluster's, as `"auto"` or `"10.0.0.1:6379"`; `None` takes the one that this process is connected
            to already, or starts one here.
        nodes: How many nodes to use at most; of a Ray that is started here, how many there are.
        restarts: How often Ray restarts a node's actor; then it is gone.
        runtime_env: What Ray is to install or copy on the nodes; see its documentation.

    Raises:
        EvaluationError: If Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        nodes: int | None = None,
        *,
        restarts: int = RESTARTS,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect, or start a Ray."""
        if nodes is not None and nodes < 1:
            raise EvaluationError(f"nodes={nodes!r}; allowed: an integer >= 1, or None")
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise EvaluationError("evaluating on many machines needs Ray: pip install 'otpy-framework[ray]'") from error
        self._restarts, self._known = restarts, dict[str, Any]()
        self._ours = not self._ray.is_initialized()
        self._local = address is None and self._ours
        self._most = (LOCAL_NODES if self._local else None) if nodes is None else nodes
        if self._ours:
            self._connect(address, dict(runtime_env or {}))
        self._job = b""

    def _connect(self, address: str | None, runtime_env: dict[str, Any]) -> None:
        options: dict[str, Any] = {"logging_level": "ERROR"}
        if runtime_env:
            options["runtime_env"] = runtime_env
        if address is None:
            options |= {"num_cpus": self._most, "include_dashboard": False}
        else:
            options["address"] = address
        try:
            self._ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            mine = ", ".join(f"{name} {number}" for name, number in versions().items())
            raise EvaluationError(
                f"no Ray at {address!r}, or not one for {mine}: {_line(error)}; `ray start --head` starts one"
            ) from error

    def work_on(self, job: Job) -> None:
        """Say what the nodes have to do.

        Args:
            job: What.

        Raises:
            EvaluationError: If it cannot be sent.
        """
        try:
            self._job = packer(self._ray.cloudpickle)(job)
        except Exception as error:
            raise EvaluationError(
                f"the program, the metric or the settings cannot be sent to other nodes: {_line(error)}"
            ) from error

    @property
    def expected(self) -> int:
        """How many nodes there will be, about."""
        if self._local:
            return self._most or 1
        there = len(self._alive())
        return there if self._most is None else min(there, self._most)

    async def joined(self) -> list[Worker]:
        """Return the nodes that were not returned before."""
        return await asyncio.to_thread(self._joined)

    def _joined(self) -> list[Worker]:
        if self._local:
            new: dict[str, str | None] = (
                {f"local-{number}": None for number in range(1, (self._most or 1) + 1)} if not self._known else {}
            )
        else:
            alive = self._alive()
            gone = [node for node in self._known if node not in alive]
            for node in gone:
                del self._known[node]
            new = {node: alive[node] for node in alive if node not in self._known}
        return [
            self._hired(node, name) for node, name in new.items() if self._most is None or len(self._known) < self._most
        ]

    def _alive(self) -> dict[str, str]:
        """Return the nodes that can take an actor, by their ids, with what they are called."""
        return {
            node["NodeID"]: f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}"
            for node in self._ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) >= CPUS
        }

    def _hired(self, node: str, name: str | None) -> Worker:
        options: dict[str, Any] = {"num_cpus": CPUS, "max_restarts": self._restarts, "max_concurrency": 4}
        if name is not None:
            scheduling: Any = importlib.import_module("ray.util.scheduling_strategies")
            options["scheduling_strategy"] = scheduling.NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._ray.remote(NodeActor).options(**options).remote()
        self._known[node] = actor
        return _RayWorker(self._ray, name or node, actor, self._job)

    def close(self) -> None:
        """End the actors, and the Ray that was started here."""
        for actor in self._known.values():
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        self._known.clear()
        if self._ours:
            self._ray.shutdown()


def run_distributed(  # noqa: PLR0913 - each is a parameter of the evaluation
    program: Program,
    devset: Rows,
    metric: Metric,
    *,
    address: str | None = None,
    nodes: int | None = None,
    losses: int = 3,
    restarts: int = RESTARTS,
    patience: float = 60.0,
    runtime_env: Mapping[str, Any] | None = None,
    **options: Any,
) -> EvaluationResult:
    """Evaluate a program on many machines and wait; the result is the one of an evaluation at home.

    The application that runs here has the settings: its limits per minute and its caps are those of all nodes together,
    and what the nodes spend is in its ledger. Ctrl-C stops the nodes; what is finished is in the error's `result`.

    Args:
        program: The program.
        devset: As of `Evaluate`.
        metric: As of `Evaluate`.
        address: The Ray cluster's, as `"auto"` or `"10.0.0.1:6379"`; `None` takes the one that this process is
            connected to already, or starts one here, and ends it again.
        nodes: How many nodes to use at most, by default all, also those that join later; of a Ray that is started here,
            how many there are, by default 2.
        losses: How often a row may be lost with its node; then it has failed.
        restarts: How often Ray restarts a node's process when it dies; then the node is gone.
        patience: Seconds without any node after which it is given up.
        runtime_env: What Ray is to install or copy on the nodes, as `{"working_dir": "."}`; see its documentation.
        options: As of `Evaluate`; `max_concurrency` is each node's.

    Raises:
        EvaluationAborted: After Ctrl-C, too many failures, or when no node is left.
        EvaluationError: If an argument cannot be used, Ray is not there, or a node cannot begin: it has other versions
            of otpy, Python or Ray, or no API key.
        NoApplication: If no application is running.
    """
    running()  # before anything is started
    fleet = RayFleet(address, nodes, restarts=restarts, runtime_env=runtime_env)
    try:
        return ManyNodes(
            devset,
            metric=metric,
            fleet=fleet,
            losses=losses,
            patience=patience,
            **options,
        )(program)
    finally:
        fleet.close()


async def arun_distributed(  # noqa: PLR0913 - as `run_distributed`
    program: Program,
    devset: Rows,
    metric: Metric,
    *,
    address: str | None = None,
    nodes: int | None = None,
    restarts: int = RESTARTS,
    runtime_env: Mapping[str, Any] | None = None,
    **options: Any,
) -> EvaluationResult:
    """Evaluate a program on many machines, as `run_distributed` does, in asynchronous code."""
    running()
    fleet = await asyncio.to_thread(RayFleet, address, nodes, restarts=restarts, runtime_env=runtime_env)
    try:
        return await ManyNodes(devset, metric=metric, fleet=fleet, **options).acall(program)
    finally:
        await asyncio.to_thread(fleet.close)
