"""A pure model of what supervisors do: the restart matrix, the intensity window, and the order of stops and starts.

Written from `supervisor(3)`, `supervisor.erl` and Elixir's `DynamicSupervisor`, and from nothing in `otpy`: no event
loop, no messages but the supervisors' own mailboxes, time is a number.
"""

from collections import Counter, deque
from dataclasses import dataclass, field, fields

NORMAL = {"normal", "shutdown", "(shutdown, x)"}
RESTARTED = {
    ("permanent", "normal"): True,
    ("permanent", "abnormal"): True,
    ("transient", "normal"): False,
    ("transient", "abnormal"): True,
    ("temporary", "normal"): False,
    ("temporary", "abnormal"): False,
}
WITHOUT_IDS = ("simple_one_for_one", "dynamic")


@dataclass(frozen=True, repr=False)
class Plan:
    """A child: a worker, or with a strategy a supervisor; `outcomes` are those of its first starts."""

    id: str
    restart: str = "permanent"
    significant: bool = False
    outcomes: tuple = ()
    strategy: str | None = None
    max_restarts: int = 1
    max_seconds: int = 3
    auto_shutdown: str = "never"
    children: tuple = ()

    def __repr__(self):
        """Only what is not the default, so that a failing example can be read."""
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[1:] if getattr(self, f.name) != f.default]
        return f"Plan({', '.join([repr(self.id), *shown])})"

    def _repr_pretty_(self, printer, cycle):
        printer.text(repr(self))

    def paths(self, path):
        """This child's path and those below it, as far as they start with it."""
        below = () if self.strategy in WITHOUT_IDS else self.children
        return [path, *(inner for child in below for inner in child.paths(f"{path}/{child.id}"))]


@dataclass(eq=False)
class Process:
    path: str
    n: int
    plan: Plan
    parent: "Process | None"
    alive: bool = True
    children: list = field(default_factory=list)
    restarts: list = field(default_factory=list)
    mailbox: deque = field(default_factory=deque)

    @property
    def name(self):
        return f"{self.path}#{self.n}"


@dataclass(eq=False)
class Child:
    """What a supervisor knows of a child."""

    plan: Plan
    path: str
    process: Process | None = None
    restarting: bool = False

    @property
    def state(self):
        return "restarting" if self.restarting else "up" if self.process else "down"


class Model:
    """All processes, and the log of their starts (`+path#n`) and ends (`-path#n reason`)."""

    def __init__(self):
        self.now = 0.0
        self.log, self.unordered = [], set()
        self.incarnations = Counter()
        self.latest = {}

    # -- starting and stopping -------------------------------------------------------------------------------------

    def start(self, child, parent):
        """Start a child; says `"ok"`, `"ignored"` or `"failed"`."""
        plan = child.plan
        self.incarnations[child.path] += 1
        process = Process(child.path, self.incarnations[child.path], plan, parent)
        self.latest[child.path] = process
        self.log.append(f"+{process.name}")
        outcome = plan.outcomes[process.n - 1] if process.n <= len(plan.outcomes) else "ok"
        if outcome == "ok" and plan.strategy and plan.strategy not in WITHOUT_IDS:
            process.children = [Child(inner, f"{child.path}/{inner.id}") for inner in plan.children]
            for inner in list(process.children):
                result = self.start(inner, process)
                if result == "failed":
                    self.stop_children(process, process.children)
                    outcome = "failed"
                    break
                if result == "ignored" and inner.plan.restart == "temporary":
                    process.children.remove(inner)
        process.alive = outcome == "ok"
        child.process = process if outcome == "ok" else None
        if outcome != "failed":
            child.restarting = False
        return outcome

    def stop_children(self, supervisor, children):
        """Stop children in reverse order; those without ids all at once, in no order."""
        running = [child for child in children if child.process is not None and child.process.alive]
        if supervisor.plan.strategy in WITHOUT_IDS and len(running) > 1:
            for child in running:
                self.loosen(child.process)
        for child in reversed(running):
            self.end(child.process, "shutdown", tell=False)
        for child in children:
            child.process, child.restarting = None, False

    def end(self, process, reason, *, tell=True):
        """End a process in good order, its children first."""
        self.stop_children(process, process.children)
        self.die(process, reason, tell=tell)

    def kill(self, process, reason):
        """Kill a process: its children die of the broken link, at the same time as its supervisor reacts."""
        orphans = [child.process for child in process.children if child.process is not None and child.process.alive]
        for orphan in orphans:
            self.loosen(orphan)
        self.die(process, reason)
        for orphan in orphans:
            self.end(orphan, "killed", tell=False)

    def loosen(self, process):
        self.unordered.add(process.name)
        for child in process.children:
            if child.process is not None:
                self.loosen(child.process)

    def die(self, process, reason, *, tell=True):
        process.alive = False
        self.log.append(f"-{process.name} {reason}")
        if tell and process.parent is not None and process.parent.alive:
            process.parent.mailbox.append(("exit", process, reason))

    # -- supervising -----------------------------------------------------------------------------------------------

    def settle(self):
        """Let supervisors take up their messages until there are none."""
        while busy := [process for process in self.latest.values() if process.alive and process.mailbox]:
            (supervisor,) = busy
            match supervisor.mailbox.popleft():
                case ("exit", process, reason):
                    for child in supervisor.children:
                        if child.process is process:
                            self.child_ended(supervisor, child, reason)
                            break
                case ("again", child):
                    if child in supervisor.children and child.restarting:
                        self.restart(supervisor, child)

    def child_ended(self, supervisor, child, reason):
        if RESTARTED[child.plan.restart, "normal" if reason in NORMAL else "abnormal"]:
            self.restart(supervisor, child)
            return
        child.process = None
        if child.plan.restart == "temporary" or supervisor.plan.strategy in WITHOUT_IDS:
            supervisor.children.remove(child)
        if not child.plan.significant or supervisor.plan.strategy == "dynamic":
            return
        left = [other for other in supervisor.children if other.plan.significant and other.state != "down"]
        auto = supervisor.plan.auto_shutdown
        if auto == "any_significant" or (auto == "all_significant" and not left):
            self.end(supervisor, "shutdown")

    def restart(self, supervisor, child):
        plan = supervisor.plan
        supervisor.restarts = [then for then in supervisor.restarts if self.now - then <= plan.max_seconds] + [self.now]
        child.process, child.restarting = None, False
        if len(supervisor.restarts) > plan.max_restarts:
            self.end(supervisor, "shutdown")
            return
        place = supervisor.children.index(child)
        group = {"one_for_all": supervisor.children[:], "rest_for_one": supervisor.children[place:]}
        group = group.get(plan.strategy, [child])
        self.stop_children(supervisor, group)
        for member in group:
            if member.plan.restart == "temporary":
                supervisor.children.remove(member)
                continue
            result = self.start(member, supervisor)
            if result == "failed":
                member.restarting = True
                supervisor.mailbox.append(("again", member))
                break
            if result == "ignored" and plan.strategy in WITHOUT_IDS:
                supervisor.children.remove(member)

    # -- administration --------------------------------------------------------------------------------------------

    def start_child(self, supervisor, child):
        known = self.known(supervisor, child.path)
        if known is not None:
            return "already_started" if known.process is not None else "already_present"
        result = self.start(child, supervisor)
        kept = child.plan.restart != "temporary" and supervisor.plan.strategy not in WITHOUT_IDS
        if result == "ok" or (result == "ignored" and kept):
            supervisor.children.append(child)
        return "failed" if result == "failed" else "ok"

    def terminate_child(self, supervisor, path):
        child = self.known(supervisor, path)
        if child is None:
            gone = path in self.latest and not self.latest[path].alive
            return "ok" if supervisor.plan.strategy == "simple_one_for_one" and gone else "not_found"
        self.stop_children(supervisor, [child])
        if child.plan.restart == "temporary" or supervisor.plan.strategy in WITHOUT_IDS:
            supervisor.children.remove(child)
        return "ok"

    def restart_child(self, supervisor, path):
        child = self.known(supervisor, path)
        if child is None:
            return "not_found"
        if child.process is not None:
            return "running"
        return "failed" if self.start(child, supervisor) == "failed" else "ok"

    def delete_child(self, supervisor, path):
        child = self.known(supervisor, path)
        if child is None:
            return "not_found"
        if child.process is not None:
            return "running"
        supervisor.children.remove(child)
        return "ok"

    @staticmethod
    def known(supervisor, path):
        return next((child for child in supervisor.children if child.path == path), None)
