"""Scenarios of the supervisor kind: a tree, what is done to it, and what became of it."""

import asyncio

from world import World, exits

from otpy.actors import (
    BRUTAL_KILL,
    INFINITY,
    ChildSpec,
    Down,
    ExitMessage,
    GenServer,
    Ignore,
    NoReply,
    Stop,
    link,
    monitor,
)
from otpy.errors import (
    ActorDown,
    ActorError,
    AlreadyRegistered,
    ClientError,
    InvalidChildSpec,
    NotRegistered,
    Overloaded,
    StartFailed,
    SupervisionError,
)
from otpy.supervisors import DynamicSupervisor, Supervisor

SHUTDOWNS = {"brutal_kill": BRUTAL_KILL, "infinity": INFINITY}


class Outsider(GenServer):
    """Starts, watches and calls; traps exits; runs the coroutine functions it is sent."""

    trap_exit = True

    def init(self, world):
        self.world = world

    async def handle_call(self, request, caller):
        try:
            return await request()
        except (SupervisionError, ActorError, ClientError) as error:
            caller.fail(error)
            return NoReply()

    def handle_info(self, message):
        match message:
            case Down(process=ref, reason=reason):
                self.world.observed.append({"DOWN": ["obs", self.world.name(ref.process), self.world.value(reason)]})
            case ExitMessage(process=ref, reason=reason) if self.world.outside[self.process] == "observer":
                self.world.observed.append({"EXIT": [self.world.name(ref.process), self.world.value(reason)]})


class Worker(GenServer):
    """A worker of a scenario."""

    async def init(self, world, path, behaviour):
        self.world, self.path, self.behaviour = world, path, behaviour
        self.counter = 0
        self.trap_exit = behaviour.get("trap_exit", False)
        outcomes = behaviour.get("init", ["ok"])
        outcome = outcomes[min(world.counts.get(path, 0), len(outcomes) - 1)]
        self.n = world.entered(self.process, path, outcome)
        if "init_sleep" in behaviour:
            await asyncio.sleep(behaviour["init_sleep"] / 1000)
        match outcome:
            case "ok":
                return None
            case "ignore":
                return Ignore()
            case {"stop": reason}:
                return Stop(world.reason(reason))
            case {"raise": value}:
                exits("error", value)
            case {"exit": value}:
                exits("exit", value)
            case {"return": value}:
                return value
        return None

    async def handle_call(self, request, caller):
        return await request(self)

    async def handle_cast(self, message):
        return await message(self)

    def handle_info(self, message):
        if isinstance(message, ExitMessage):
            sender = None if message.process is None else message.process.process
            reason = self.world.value(message.reason)
            self.world.log("info", self.path, self.n, {"EXIT": [self.world.name(sender), reason]})
            return Stop(message.reason) if self.behaviour.get("on_exit") == "stop" else None
        return message(self) if callable(message) else None

    async def terminate(self, reason):
        self.world.log("terminate", self.path, self.n, self.world.value(reason))
        match self.behaviour.get("terminate"):
            case {"sleep": ms}:
                await asyncio.sleep(ms / 1000)
            case {"hang": True}:
                await asyncio.get_running_loop().create_future()
            case {"raise": value}:
                exits("error", value)
            case {"exit": value}:
                exits("exit", value)


class Runner:
    """One scenario."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.world = World()
        self.nodes = {}

    # -- the tree --------------------------------------------------------------------------------------------------

    def spec(self, node, path):
        fields = {"id": node.get("id")}
        for key in ("restart", "type", "significant"):
            if key in node:
                fields[key] = node[key]
        if "shutdown" in node:
            shutdown = node["shutdown"]
            known = SHUTDOWNS.get(shutdown) if isinstance(shutdown, str) else None
            fields["shutdown"] = known or (
                shutdown / 1000 if isinstance(shutdown, (int, float)) and shutdown >= 0 else shutdown
            )
        return ChildSpec(start=lambda: self.start_node(node, path), **fields)

    async def start_node(self, node, path):
        try:
            return await self.start_process(node, path)
        except InvalidChildSpec as error:
            if path == "root":
                raise
            raise StartFailed(path, self.refused(path, error)) from None

    async def start_process(self, node, path):
        if "flags" not in node:
            name = node.get("worker", {}).get("register")
            return await Worker.start_link(self.world, path, node.get("worker", {}), name=name)
        flags, world, runner = node["flags"], self.world, self
        init = node.get("init", "ok")
        options = {
            "strategy": flags.get("strategy", "one_for_one"),
            "max_restarts": flags.get("intensity", 1),
            "max_seconds": flags.get("period", 5),
            "auto_shutdown": flags.get("auto_shutdown", "never"),
        }

        def outcome():
            match init:
                case "ignore":
                    return Ignore()
                case {"raise": value}:
                    exits("error", value)
                case {"exit": value}:
                    exits("exit", value)
                case {"return": value}:
                    exits("exit", {"bad_return": value})
            return None

        if options["strategy"] == "dynamic":

            class Dynamic(DynamicSupervisor):
                def init(self):
                    world.entered(self.process, path)
                    self.node, self.path, self.slots = node, path, {}
                    early = outcome()
                    if early is not None:
                        return early
                    return super().init(max_children=flags.get("max_children"), max_restarts=options["max_restarts"],
                                        max_seconds=options["max_seconds"])  # fmt: skip

            return await Dynamic.start_link()

        class Tree(Supervisor):
            async def init(self):
                world.entered(self.process, path)
                self.node, self.path = node, path
                early = outcome()
                if early is not None:
                    return early
                return await super().init()

        specs = [runner.spec(child, f"{path}/{child['id']}") if isinstance(child, dict) else child
                 for child in node.get("children", [])]  # fmt: skip
        return await Tree.start_link(specs, **options)

    # -- running ---------------------------------------------------------------------------------------------------

    async def run(self):
        """Yield each expected step result with what otpy did."""
        world = self.world
        outsiders = {name: await Outsider.start(world) for name in ("parent", "external", "client", "observer")}
        self.outsiders = outsiders
        for name, ref in outsiders.items():
            world.outside[ref.process] = name
            world.processes.append(ref.process)
        result = await outsiders["parent"].call(lambda: self.started(self.scenario["tree"]), None)
        yield "start", self.scenario["start"], await self.step_result(result, None)
        for number, step in enumerate(self.scenario["steps"]):
            settle = step.get("settle")
            operation = getattr(self, "op_" + step["op"])
            if isinstance(settle, dict):
                waiting = asyncio.ensure_future(world.until(settle["event"]))
                await asyncio.sleep(0)
                result = await operation(step)
                await waiting
                result = result() if callable(result) else result
                yield f"step {number} {step['op']}", step["expect"], {"result": result}
                continue
            result = await operation(step)
            yield f"step {number} {step['op']}", step["expect"], await self.step_result(result, step)

    async def step_result(self, result, step):
        await self.world.settle()
        if callable(result):
            result = result()
        return {"result": result, **self.world.taken(), "tree": self.tree()}

    async def started(self, node):
        try:
            ref = await self.start_node(node, "root")
        except InvalidChildSpec as error:
            return {"error": self.refused("root", error)}
        except StartFailed as failed:
            if failed.reason == "ignore":
                return "ignore"
            return {"error": self.world.value(failed.reason)}
        return {"ok": self.world.name(ref.process)}

    def refused(self, path, error):
        """OTP enters the supervisor's init before it looks at the specs; otpy looks before it starts anything."""
        n = self.world.counts[path] = self.world.counts.get(path, 0) + 1
        self.world.log("init", path, n)
        value = refusal(error)
        self.world.failed_starts.append([path, n, value])
        return value

    def tree(self):
        found = {}
        for process in list(self.world.instances.values()):
            actor = process.actor
            if not process.alive or not hasattr(actor, "children"):
                continue
            path, n = self.world.paths[process]
            children = [self.child(actor, child) for child in actor.children]
            if isinstance(actor, DynamicSupervisor):
                children.sort(key=lambda child: str(child[0]))
            counts = [len(actor.children), sum(state == "alive" for _, state, _ in children),
                      sum(child.spec.type == "supervisor" for child in actor.children)]  # fmt: skip
            found[path] = {"n": n, "children": children, "counts": [*counts, counts[0] - counts[2]]}
        return found

    def child(self, actor, child):
        id_ = child.spec.id
        if isinstance(actor, DynamicSupervisor):
            id_ = None if child.restarting else id_
        if child.restarting:
            return [id_, "restarting", None]
        if child.ref is None:
            return [id_, "undefined", None]
        _path, n = self.world.paths[child.ref.process]
        return [id_, "alive" if child.ref.is_alive() else "dead", n]

    # -- operations ------------------------------------------------------------------------------------------------

    def by_client(self, function):
        return self.outsiders["client"].call(function, None)

    async def op_exit(self, step):
        self.world.find(step["path"]).signal(self.outsiders["external"].process, self.world.reason(step["reason"]))

    async def op_exit_many(self, step):
        supervisor = self.world.find(step["sup"])
        supervisor.ready = False  # suspended: its mailbox is not read
        for target in step["targets"]:
            process = self.world.find(target["path"])
            process.signal(self.outsiders["external"].process, self.world.reason(target["reason"]))
            while process.alive:
                await asyncio.sleep(0.001)
        supervisor.ready = True
        supervisor._schedule()

    async def op_parent_exit(self, step):
        self.world.find("root").signal(self.outsiders["parent"].process, self.world.reason(step["reason"]))

    async def op_stop(self, step):
        process, wanted = self.world.find(step["path"]), self.world.reason(step["reason"])
        if not process.alive:
            return {"exit": "noproc"}
        await process.ref.stop(wanted)
        return "ok" if process.exit_reason == wanted else {"exit": self.world.value(process.exit_reason)}

    async def op_cast_stop(self, step):
        async def stop(_):
            return Stop(self.world.reason(step["reason"]))

        self.world.find(step["path"]).ref.cast(stop)

    async def op_call_stop(self, step):
        async def stop(_):
            reason = self.world.reason(step["reason"])
            return Stop(reason, reply="stopping") if step["reply"] else Stop(reason)

        return await self.called(step["path"], stop)

    async def called(self, path, function):
        try:
            return {"reply": await self.world.find(path).ref.call(function, None)}
        except ActorDown as down:
            return {"exit": self.world.value(down.reason)}

    async def op_raise(self, step):
        async def fail(_):
            exits(step["class"], self.world.reason(step["value"]))

        if step["via"] == "call":
            return await self.called(step["path"], fail)
        ref = self.world.find(step["path"]).ref
        (ref.cast if step["via"] == "cast" else ref.send)(fail)
        return None

    async def op_incr(self, step):
        async def incr(worker):
            worker.counter += 1
            return worker.counter

        return await self.called(step["path"], incr)

    async def op_link_workers(self, step):
        async def linked(_):
            link(self.world.find(step["b"]).ref)
            return "ok"

        return await self.called(step["a"], linked)

    async def op_unlink_parent(self, step):
        async def unlinked(worker):
            worker.process.unlink(worker.process.parent)
            return "ok"

        return await self.called(step["path"], unlinked)

    async def op_monitor(self, step):
        async def watch():
            monitor(self.world.find(step["path"]).ref)

        await self.outsiders["observer"].call(watch, None)

    async def op_link(self, step):
        async def linked():
            link(self.world.find(step["path"]).ref)

        await self.outsiders["observer"].call(linked, None)

    async def op_wait(self, step):
        await asyncio.sleep(step["ms"] / 1000)

    async def op_settle(self, step):
        return None

    # -- the supervisor's functions --------------------------------------------------------------------------------

    async def asked(self, step, function):
        try:
            return await self.by_client(lambda: function(self.world.find(step["sup"]).ref))
        except StartFailed as failed:
            return {"error": self.value_of_failed(failed)}
        except AlreadyRegistered as error:
            owner = error.owner
            if isinstance(owner, str):
                return {"error": "already_present"}
            return {"error": {"already_started": self.world.name(getattr(owner, "process", owner))}}
        except NotRegistered:
            return {"error": "not_found"}
        except Overloaded:
            return {"error": "max_children"}
        except InvalidChildSpec as error:
            return {"error": invalid(error)}
        except SupervisionError as error:
            return {"error": str(error).rpartition(" ")[2]}
        except ActorDown as down:
            return {"exit": self.world.value(down.reason)}

    def value_of_failed(self, failed):
        if isinstance(failed.reason, AlreadyRegistered):
            return {"already_started": self.world.name(failed.reason.owner)}
        return self.world.value(failed.reason)

    async def op_start_child(self, step):
        node = dict(step.get("child") or {})
        if "id" in node.get("omit", ()):
            return {"error": "missing_id"}  # in otpy that is no call at all: `id` is a required argument
        actor = self.world.find(step["sup"]).actor
        id_ = step.get("slot", node.get("id"))
        path = f"{actor.path}/{id_}"

        async def start(ref):
            spec = self.spec({**node, "id": id_}, path)
            started = await ref.start_child(spec)
            if started is None:
                return "ignore" if isinstance(actor, DynamicSupervisor) else {"ok": None}
            return {"ok": self.world.name(started.process)}

        return await self.asked(step, start)

    def named(self, step):
        if "id" in step:
            return step["id"]
        actor = self.world.find(step["sup"]).actor
        path = step.get("pid_of") or f"{actor.path}/{step['slot']}"
        return self.world.find(path).ref

    async def op_terminate_child(self, step):
        async def terminate(ref):
            await ref.terminate_child(self.named(step))
            return "ok"

        return await self.asked(step, terminate)

    async def op_restart_child(self, step):
        async def restart(ref):
            started = await ref.restart_child(self.named(step))
            return {"ok": None if started is None else self.world.name(started.process)}

        return await self.asked(step, restart)

    async def op_delete_child(self, step):
        async def delete(ref):
            await ref.delete_child(self.named(step))
            return "ok"

        return await self.asked(step, delete)

    async def op_which_children(self, step):
        async def which(ref):
            infos = await ref.which_children()
            return lambda: rows_of(ref, infos)

        def rows_of(ref, infos):
            rows = []
            for info in infos:
                state = {"up": "alive", "down": "undefined"}.get(info.state, info.state)
                if info.ref is not None and not info.ref.is_alive():
                    state = "dead"
                n = None if info.ref is None else self.world.paths[info.ref.process][1]
                slot = info.id if info.id is not None else (
                    self.world.paths[info.ref.process][0].rpartition("/")[2] if info.ref else None)  # fmt: skip
                rows.append([slot, state, n, info.type.value])
            dynamic = isinstance(ref.process.actor, DynamicSupervisor)
            return {"ok": sorted(rows, key=lambda row: str(row[0])) if dynamic else rows[::-1]}

        return await self.asked(step, which)

    async def op_count_children(self, step):
        async def count(ref):
            counts = await ref.count_children()
            return {"ok": {"specs": counts.specs, "active": counts.active, "supervisors": counts.supervisors,
                           "workers": counts.workers}}  # fmt: skip

        return await self.asked(step, count)

    async def op_get_childspec(self, step):
        async def get(ref):
            spec = await ref.get_childspec(self.named(step))
            shutdown = {BRUTAL_KILL: "brutal_kill", INFINITY: "infinity"}.get(spec.shutdown)
            shown = {"id": spec.id, "restart": spec.restart.value, "type": spec.type.value}
            shown["shutdown"] = shutdown or round(spec.shutdown * 1000)
            return {"ok": {**shown, "significant": spec.significant}}

        return await self.asked(step, get)


FLAGS = {"strategy": "invalid_strategy", "max_restarts": "invalid_intensity", "max_seconds": "invalid_period",
         "auto_shutdown": "invalid_auto_shutdown"}  # fmt: skip
FIELDS = {"restart": "invalid_restart_type", "shutdown": "invalid_shutdown", "type": "invalid_child_type",
          "significant": "invalid_significant", "child": "invalid_child_spec"}  # fmt: skip


def refusal(error):
    """What a supervisor that cannot be started says."""
    if error.field in FLAGS:
        return {"supervisor_data": {FLAGS[error.field]: error.value}}
    return {"start_spec": invalid(error)}


def invalid(error):
    """A refused spec as OTP words it."""
    field = error.field.partition(" ")[0]
    if field == "significant" and error.value is True:
        combined = {"restart": "permanent"} if "permanent" in error.allowed else {"auto_shutdown": "never"}
        return {"bad_combination": [combined, {"significant": True}]}
    if field == "id":
        return {"duplicate_child_name": error.value}
    return {FIELDS.get(field, field): error.value}
