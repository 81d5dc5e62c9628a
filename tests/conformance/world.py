"""What both kinds of scenario share: the log, the incarnations, the values, and when nothing more happens."""

import asyncio

from otpy.actors import KILL, NORMAL, BadReturnValue, Exit, Shutdown
from otpy.actors.process import Process
from otpy.errors import ActorDown, CallTimeout, StartFailed


class Raised(Exception):
    """An ordinary exception with a value: `error:Value` in Erlang."""

    def __init__(self, value):
        self.value = value
        super().__init__(value)


class World:
    """The log of a scenario."""

    def __init__(self):
        self.events, self.failed_starts, self.observed, self.finished = [], [], [], []
        self.counts = {}
        self.instances = {}  # path -> latest process
        self.paths = {}  # process -> (path, n)
        self.processes = []
        self.waiting = {}
        self.outside = {}  # process -> the name it has in results

    def entered(self, process, path, *outcome):
        """Log that an init was entered; returns the incarnation."""
        n = self.counts[path] = self.counts.get(path, 0) + 1
        self.instances[path] = process
        self.paths[process] = (path, n)
        self.processes.append(process)
        self.log("init", path, n, *outcome)
        process.when_down(self.ended)
        waiter = self.waiting.pop(("init", path, n), None)
        if waiter is not None:
            waiter.set_result(None)
        return n

    def ended(self, process):
        path, n = self.paths[process]
        if process.ready:
            self.log("exit", path, n, self.value(process.exit_reason))
        else:
            self.failed_starts.append([path, n, self.value(process.exit_reason)])

    def log(self, *event):
        self.events.append(list(event))

    def name(self, process):
        """The instance, as results show it."""
        if process is None:
            return "external"
        if process in self.outside:
            return self.outside[process]
        path, n = self.paths[process]
        return f"{path}#{n}"

    def find(self, path):
        """The process of a path, or of one of its incarnations."""
        if "#" in path:
            wanted = path.rpartition("#")
            return next(process for process, (p, n) in self.paths.items() if (p, str(n)) == (wanted[0], wanted[2]))
        return self.instances[path]

    # -- values ----------------------------------------------------------------------------------------------------

    def reason(self, value):
        """A reason as otpy has it."""
        if value == "kill":
            return KILL
        if isinstance(value, dict) and set(value) == {"shutdown"}:
            return Shutdown(value["shutdown"])
        return value

    def value(self, reason):
        """A reason as the corpus writes it."""
        match reason:
            case Shutdown(StartFailed() as failed):
                return {"shutdown": {"failed_to_start_child": [failed.child, self.value(failed.reason)]}}
            case Shutdown(detail):
                return {"shutdown": self.value(detail)}
            case Raised():
                return {"error": reason.value}
            case BadReturnValue(callback="init"):
                return {"bad_return_value": self.value(reason.value)}
            case BadReturnValue():
                return {"bad_return_value": self.value(reason.value)}
            case ActorDown():
                return self.value(reason.reason)
            case CallTimeout():
                return "timeout"
            case StartFailed():
                return {"failed_to_start_child": [reason.child, self.value(reason.reason)]}
            case Exit():
                return self.value(reason.reason)
            case _:
                return reason

    # -- settling --------------------------------------------------------------------------------------------------

    async def settle(self):
        """Return when every process is idle with an empty mailbox; timers of workers may be pending."""
        loop = asyncio.get_running_loop()
        for _ in range(20_000):
            for _ in range(3):
                await asyncio.sleep(0)
            if len(loop._ready) == 0 and not any(self.busy(process) for process in self.processes):
                return
            if len(loop._ready) == 0:
                await asyncio.sleep(0.005)
        raise AssertionError("it does not settle")

    def busy(self, process):
        return process.alive and (
            not process.ready or process._task is not None or bool(process._batch) or bool(process._incoming)
        )

    async def until(self, event):
        """Return as soon as an event is logged."""
        key = tuple(event)
        if list(event) in [logged[:3] for logged in self.events]:
            return
        self.waiting[key] = asyncio.get_running_loop().create_future()
        await self.waiting[key]

    def taken(self):
        """What happened since it was last taken."""
        lists = {"failed_starts": self.failed_starts, "observed": self.observed, "async": self.finished}
        step = {"events": self.events, **{key: value for key, value in lists.items() if value}}
        self.events, self.failed_starts, self.observed, self.finished = [], [], [], []
        return step


def signal(target, sender, reason):
    """Send an exit signal."""
    target.signal(sender, reason)


def exits(kind, value):
    """Raise as a worker was told to."""
    if kind == "error":
        raise Raised(value)
    if kind == "exit":
        raise Exit(value)
    raise BadReturnValue("callback", value)


_ = (NORMAL, Process)
