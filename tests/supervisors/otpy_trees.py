"""The trees of `otp_model.py`, as processes of otpy that log the same."""

from collections import Counter

from otp_model import WITHOUT_IDS

from otpy.actors import ChildSpec, GenServer, Ignore, Shutdown, Stop
from otpy.errors import AlreadyRegistered, NotRegistered, StartFailed, SupervisionError
from otpy.supervisors import DynamicSupervisor, Supervisor


class Worker(GenServer):
    """Starts as planned, and ends when told to."""

    def init(self, real, plan, path):
        n = real.entered(self.process, path)
        match plan.outcomes[n - 1] if n <= len(plan.outcomes) else "ok":
            case "failed":
                raise OSError(f"{path} cannot start")
            case "ignored":
                return Ignore()
        return None

    def handle_cast(self, reason):
        return Stop(reason)


class Real:
    """The same processes in otpy."""

    def __init__(self):
        self.log = []
        self.incarnations = Counter()
        self.latest = {}
        self.names = {}

    def entered(self, process, path):
        self.incarnations[path] += 1
        n = self.incarnations[path]
        self.latest[path] = process
        self.names[process] = f"{path}#{n}"
        self.log.append(f"+{path}#{n}")
        process.when_down(self.ended)
        return n

    def ended(self, process):
        if process.ready:
            reason = process.exit_reason
            reason = f"(shutdown, {reason.detail})" if isinstance(reason, Shutdown) else reason
            self.log.append(f"-{self.names[process]} {reason}")

    # -- starting --------------------------------------------------------------------------------------------------

    def spec(self, plan, path, *, template=False):
        def start(*slot):
            return self.start(plan, "/".join([path, *slot]))

        path = path if template else f"{path}/{plan.id}"
        kind = "supervisor" if plan.strategy else "worker"
        return ChildSpec(id=plan.id, start=start, restart=plan.restart, type=kind, significant=plan.significant)

    async def start(self, plan, path):
        if plan.strategy is None:
            return await Worker.start_link(self, plan, path)
        real = self
        limits = {"max_restarts": plan.max_restarts, "max_seconds": plan.max_seconds}

        class Dynamic(DynamicSupervisor):
            def init(self):
                real.entered(self.process, path)
                return super().init(**limits)

        class Tree(Supervisor):
            async def init(self):
                real.entered(self.process, path)
                return await super().init()

        if plan.strategy == "dynamic":
            return await Dynamic.start_link()
        children = [self.spec(child, path, template=plan.strategy in WITHOUT_IDS) for child in plan.children]
        return await Tree.start_link(children, strategy=plan.strategy, auto_shutdown=plan.auto_shutdown, **limits)

    async def plant(self, plan):
        try:
            await self.start(plan, plan.id)
        except StartFailed:
            return "failed"
        return "ok"

    # -- asking ----------------------------------------------------------------------------------------------------

    async def ask(self, supervisor, function, *args):
        try:
            await getattr(self.latest[supervisor].ref, function)(*args)
        except StartFailed:
            return "failed"
        except AlreadyRegistered as error:
            return "already_present" if isinstance(error.owner, str) else "already_started"
        except NotRegistered:
            return "not_found"
        except SupervisionError as error:
            return str(error).rpartition(" ")[2]
        return "ok"

    async def tree(self):
        found = {}
        for path, process in self.latest.items():
            if process.alive and process.kind is not Worker:
                infos, counts = await process.ref.which_children(), await process.ref.count_children()
                rows = [(self.names[i.ref.process] if i.ref else f"{path}/{i.id}", i.state) for i in infos]
                rows = rows if infos and infos[0].id is not None else sorted(rows)  # those without ids have no order
                found[path] = [rows, counts.specs, counts.active, counts.supervisors, counts.workers]
        return found


def told(reason):
    """A reason of the model as otpy has it."""
    return Shutdown("x") if reason == "(shutdown, x)" else reason
