"""Whatever happens to a tree of supervisors, it behaves as the model of OTP in `otp_model.py` says.

Random trees, random events, virtual time: after each step the log of starts and ends, the answers, and what every
supervisor says of its children are compared. A failing example is printed as a script of steps.
"""

import asyncio
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, precondition, rule

sys.path.insert(0, str(Path(__file__).parent))

from otp_model import WITHOUT_IDS, Child, Model, Plan
from otpy_trees import Real, told

from otpy.testing.virtual_time import VirtualTimeLoop

pytestmark = pytest.mark.timeout(600)  # it passes in seconds; shrinking a failing example can take minutes

STEP = 1
"""Virtual seconds that pass with every step, so that whole seconds also meet the end of an intensity's window."""


def expected_tree(model):
    found = {}
    for path, process in model.latest.items():
        if process.alive and process.plan.strategy:
            children = process.children
            rows = [(child.process.name if child.process else child.path, child.state) for child in children]
            rows = sorted(rows) if process.plan.strategy in WITHOUT_IDS else rows
            specs = 1 if process.plan.strategy == "simple_one_for_one" else len(children)
            supervisors = sum(child.plan.strategy is not None for child in children)
            active = sum(child.state == "up" for child in children)
            found[path] = [rows, specs, active, supervisors, len(children) - supervisors]
    return found


def in_groups(log, unordered):
    """The log without the unordered processes, and theirs one by one."""
    groups = {}
    for line in log:
        name = line[1:].partition(" ")[0]
        groups.setdefault(name if name in unordered else "", []).append(line)
    return groups


# -- random trees ----------------------------------------------------------------------------------------------------

WITH_IDS = ("one_for_one", "one_for_all", "rest_for_one")
OUTCOMES = [(), (), (), ("ok", "failed"), ("ok", "failed", "failed"), ("ok", "ignored"), ("ignored",), ("failed",)]
REASONS = ["normal", "shutdown", "(shutdown, x)", "boom", "killed"]
IDS = "abcd"


@st.composite
def plans(draw, depth, id_="a", auto_shutdown="never", *, strategies=None):
    """A child, or with `strategies` the root of a tree, which has one of them; the usual comes first, to shrink to."""
    restart = draw(st.sampled_from(["permanent", "transient", "temporary"]))
    significant = restart != "permanent" and auto_shutdown != "never" and draw(st.sampled_from([False, True, True]))
    if strategies is None and (depth == 0 or draw(st.integers(0, 2)) < 2):
        return Plan(id_, restart, significant, draw(st.sampled_from(OUTCOMES)))
    strategy = draw(st.sampled_from(strategies or (*WITH_IDS, *WITHOUT_IDS)))
    auto = draw(st.sampled_from(["never", "any_significant", "all_significant"])) if strategy != "dynamic" else "never"
    length = {"simple_one_for_one": (1, 1), "dynamic": (0, 0)}.get(strategy, (min(depth, 2), len(IDS)))
    return Plan(
        id_, restart, significant, (), strategy,
        draw(st.sampled_from([1, 0, 2, 3, 4])), draw(st.sampled_from([3, 1, 1000])), auto,
        tuple(draw(plans(depth - 1, IDS[i], auto)) for i in range(draw(st.integers(*length)))),
    )  # fmt: skip


def trees(strategies):
    return plans(2, strategies=strategies)


class SupervisorsKeepTheContract(RuleBasedStateMachine):
    """Does the same to otpy and to the model, and compares."""

    paths = Bundle("paths")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.real, self.model = Real(), Model()
        self.roots = 0
        self.root = ""

    def teardown(self):
        async def end():
            for process in list(self.real.latest.values()):
                process.ref.exit("kill")
            await asyncio.sleep(STEP)

        self.runner.run(end())
        self.runner.close()

    # -- a step ----------------------------------------------------------------------------------------------------

    def step(self, act=None, wait=STEP):
        """Do something to otpy, let it settle, and compare; the model has done it already, or does it in `settle`."""

        async def run():
            result = await act() if act is not None else None
            # virtual time passes only when nothing else is left to do: afterwards every process is idle
            await asyncio.sleep(wait)
            return result, await self.real.tree()

        self.model.settle()
        result, tree = self.runner.run(run())
        log, expected = self.real.log, self.model.log
        note(f"    {' '.join(log) or 'nothing happens'}")
        assert in_groups(log, self.model.unordered) == in_groups(expected, self.model.unordered)
        assert tree == expected_tree(self.model)
        log.clear()
        expected.clear()
        self.model.unordered.clear()
        self.model.now = self.runner.get_loop().time()
        return result

    def alive(self, path):
        process = self.model.latest.get(path)
        return process if process is not None and process.alive else None

    def supervisor(self, path):
        process = self.alive(path)
        return process if process is not None and process.plan.strategy is not None else None

    def nearest(self, path):
        """The live supervisor that a path is of, or is closest above it: few choices come to nothing then."""
        while path and not self.supervisor(path):
            path = path.rpartition("/")[0]
        return self.supervisor(path)

    # -- what may happen -------------------------------------------------------------------------------------------

    def grow(self, plan):
        self.roots += 1
        self.root = f"r{self.roots}"
        plan = Plan(**{**vars(plan), "id": self.root})
        result = self.model.start(Child(plan, self.root), None)
        assert self.step(lambda: self.real.plant(plan)) == result
        return multiple(*plan.paths(self.root))

    @initialize(target=paths, plan=trees(WITH_IDS))
    def plant(self, plan):
        return self.grow(plan)

    @precondition(lambda self: not self.alive(self.root))
    @rule(target=paths, plan=trees(WITH_IDS))
    def plant_another_tree(self, plan):
        return self.grow(plan)

    @rule(path=paths, reason=st.sampled_from(REASONS))
    def one_ends(self, path, reason):
        if process := self.alive(path):
            self.end([process], [reason])

    @rule(
        near=paths,
        places=st.lists(st.integers(0, 3), min_size=2, max_size=4, unique=True),
        reasons=st.permutations(REASONS),
    )
    def several_children_end_at_once(self, near, places, reasons):
        if supervisor := self.nearest(near):
            running = [child.process for child in supervisor.children if child.process]
            chosen = dict.fromkeys(place % len(running) for place in places if running)
            if chosen:
                self.end([running[place] for place in chosen], reasons)

    def end(self, processes, reasons):
        """End workers, and kill supervisors, of one parent, before it hears of any."""
        ends = [
            (process, "killed" if process.plan.strategy else reason)
            for process, reason in zip(processes, reasons, strict=False)
        ]

        async def act():
            for process, reason in ends:
                ref = self.real.latest[process.path].ref
                if reason == "killed":
                    ref.exit("kill")
                else:
                    ref.cast(told(reason))

        # a kill acts at once, whereas all others have to take up a message first
        for process, reason in sorted(ends, key=lambda end: end[1] != "killed"):
            (self.model.kill if reason == "killed" else self.model.die)(process, reason)
        self.step(act)

    @rule(path=paths, reason=st.sampled_from(REASONS[:-1]))
    def a_supervisor_is_stopped(self, path, reason):
        process = self.supervisor(path)
        if process is None:
            return
        self.model.end(process, reason)

        async def act():
            await self.real.latest[path].ref.stop(told(reason))

        self.step(act)

    @rule(seconds=st.sampled_from([1, 3, 5, 2000]))
    def time_passes(self, seconds):
        self.step(wait=seconds)

    # -- the supervisor's functions --------------------------------------------------------------------------------

    @rule(target=paths, near=paths, plan=plans(1, auto_shutdown="any_significant"), id_=st.sampled_from(IDS))
    def start_child(self, near, plan, id_):
        supervisor = self.nearest(near)
        if supervisor is None or supervisor.plan.strategy in WITHOUT_IDS:
            return multiple()
        significant = plan.significant and supervisor.plan.auto_shutdown != "never"
        plan = Plan(**{**vars(plan), "id": id_, "significant": significant})
        return self.started(supervisor, plan, self.real.spec(plan, supervisor.path))

    @rule(target=paths, near=paths, plan=plans(1), number=st.integers(1, 4))
    def start_children_without_ids(self, near, plan, number):
        supervisor = self.nearest(near)
        if supervisor is None or supervisor.plan.strategy not in WITHOUT_IDS:
            return multiple()
        simple = supervisor.plan.strategy == "simple_one_for_one"
        started = []
        for _ in range(number):
            slot = f"d{len(self.model.latest)}"
            child = Plan(**{**vars(supervisor.plan.children[0] if simple else plan), "id": slot})
            more = self.started(supervisor, child, slot if simple else self.real.spec(child, supervisor.path))
            started += more.values
        return multiple(*started)

    def started(self, supervisor, plan, argument):
        path = f"{supervisor.path}/{plan.id}"
        expected = self.model.start_child(supervisor, Child(plan, path))
        assert self.step(lambda: self.real.ask(supervisor.path, "start_child", argument)) == expected
        return multiple(*(plan.paths(path) if expected == "ok" else ()))

    @rule(path=paths, function=st.sampled_from(["terminate_child", "restart_child", "delete_child"]))
    def administer(self, path, function):
        parent, _, id_ = path.rpartition("/")
        supervisor = self.supervisor(parent)
        if supervisor is None:
            return
        if supervisor.plan.strategy in WITHOUT_IDS:
            if function != "terminate_child" or path not in self.real.latest:
                return
            id_ = self.real.latest[path].ref
        expected = getattr(self.model, function)(supervisor, path)
        assert self.step(lambda: self.real.ask(parent, function, id_)) == expected


@pytest.fixture(autouse=True)
def quiet_log():
    """What supervisors log of a thousand crashes would bury the script of a failing example."""
    log = logging.getLogger("otpy")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(level)


class SupervisorsWithoutIdsKeepIt(SupervisorsKeepTheContract):
    """The same, with `simple_one_for_one` and dynamic supervisors at the root, and some children at once."""

    paths = SupervisorsKeepTheContract.paths

    @initialize(target=paths, plan=trees(WITHOUT_IDS), child=plans(1), number=st.integers(1, 4))
    def plant(self, plan, child, number):
        root = self.grow(plan)
        return multiple(*root.values, *self.start_children_without_ids(self.root, child, number).values)

    @precondition(lambda self: not self.alive(self.root))
    @rule(target=paths, plan=trees(WITHOUT_IDS), child=plans(1), number=st.integers(1, 4))
    def plant_another_tree(self, plan, child, number):
        return self.plant(plan, child, number)


EFFORT = settings(max_examples=250, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))


class TestSupervisors(SupervisorsKeepTheContract.TestCase):
    settings = EFFORT


class TestSupervisorsWithoutIds(SupervisorsWithoutIdsKeepIt.TestCase):
    settings = EFFORT


@given(crash=st.sampled_from(["boom", "killed"]), end=st.sampled_from(["normal", "shutdown"]))
def test_a_significant_child_that_is_restarting_is_not_gone(crash, end):
    """A corner that random events hardly ever meet."""
    machine = SupervisorsKeepTheContract()
    children = (
        Plan("a", "transient", significant=True, outcomes=("ok", "failed", "ok")),
        Plan("b", "transient", significant=True),
    )
    machine.grow(Plan("r", strategy="one_for_one", auto_shutdown="all_significant", max_restarts=3, children=children))
    machine.end([machine.alive("r1/a"), machine.alive("r1/b")], [crash, end])
    assert machine.alive("r1/a")
    machine.teardown()
