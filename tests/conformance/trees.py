"""Scenarios of the supervisor kind: a tree, what is done to it, and what became of it."""

import asyncio

from nodes import Grower, invalid, named, strategy_of
from world import exits

from otpy.actors import (
    BRUTAL_KILL,
    INFINITY,
    Down,
    ExitMessage,
    GenServer,
    Names,
    NoReply,
    Stop,
    link,
    monitor,
    names_context,
)
from otpy.actors import sys as otp_sys
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
from otpy.supervisors import DynamicSupervisor
from otpy.supervisors.strategy import SIMPLE_ONE_FOR_ONE


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


class Runner(Grower):
    """One scenario."""

    def __init__(self, scenario):
        super().__init__()
        self.scenario = scenario

    # -- running ---------------------------------------------------------------------------------------------------

    async def run(self):
        """Yield each expected step result with what otpy did."""
        world = self.world
        names_context.set(Names())  # of this scenario: a name of the one before it is free again
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
        except StartFailed as failed:
            if failed.reason == "ignore":
                return "ignore"
            return {"error": self.world.value(failed.reason)}
        return {"ok": self.world.name(ref.process)}

    def tree(self):
        found = {}
        for process in list(self.world.instances.values()):
            if not process.alive or not hasattr(process.actor, "children"):
                continue
            actor, (path, n) = process.actor, self.world.paths[process]
            children = [self.child(actor, child) for child in actor.children]
            if without_ids(actor):
                children.sort(key=by_slot)
            counts = actor.counts()
            found[path] = {"n": n, "children": children,
                           "counts": [counts.specs, counts.active, counts.supervisors, counts.workers]}  # fmt: skip
        return found

    def child(self, actor, child):
        if child.restarting:
            return [None if without_ids(actor) else child.spec.id, "restarting", None]
        if child.ref is None:
            return [child.spec.id, "undefined", None]
        path, n = self.world.paths[child.ref.process]
        id_ = path.rpartition("/")[2] if without_ids(actor) else child.spec.id
        return [id_, "alive" if child.ref.is_alive() else "dead", n]

    # -- operations ------------------------------------------------------------------------------------------------

    def by_client(self, function):
        return self.outsiders["client"].call(function, None)

    async def op_exit(self, step):
        self.world.find(step["path"]).signal(self.outsiders["external"].process, self.world.reason(step["reason"]))

    async def op_exit_many(self, step):
        supervisor = self.world.find(step["sup"]).ref
        await otp_sys.suspend(supervisor)
        for target in step["targets"]:
            process = self.world.find(target["path"])
            process.signal(self.outsiders["external"].process, self.world.reason(target["reason"]))
            while process.alive:
                await asyncio.sleep(0.001)
        await otp_sys.resume(supervisor)

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
            return {"error": self.world.value(failed.reason)}
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
            refused = "simple_one_for_one" if "simple_one_for_one" in str(error) else str(error).rpartition(" ")[2]
            return {"error": refused}
        except ActorDown as down:
            return {"exit": self.world.value(down.reason)}

    async def op_start_child(self, step):
        path, _ = self.world.paths[self.world.find(step["sup"])]
        flags, slot, node = self.flags[path], step.get("slot"), step.get("child")

        async def start(ref):
            if node is None:
                started = await ref.start_child(slot, step.get("worker", {}))
            else:
                child = {**node, "id": slot} if slot is not None else node
                try:
                    spec = self.spec(child, f"{path}/{named(child)}", flags)
                except InvalidChildSpec:
                    await ref.settled()  # in OTP it is the supervisor that refuses, if it lives
                    raise
                started = await ref.start_child(spec)
            if started is None:
                return "ignore" if strategy_of(flags) == "dynamic" else {"ok": None}
            return {"ok": self.world.name(started.process)}

        return await self.asked(step, start)

    def named(self, step):
        if "id" in step:
            return step["id"]
        if "pid_of" in step:
            return self.world.find(step["pid_of"]).ref
        path, _ = self.world.paths[self.world.find(step["sup"])]
        return self.world.find(f"{path}/{step['slot']}").ref

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
                id_ = info.id
                if id_ is None and info.ref is not None:
                    id_ = self.world.paths[info.ref.process][0].rpartition("/")[2]
                rows.append([id_, state, n, info.type.value])
            return {"ok": sorted(rows, key=by_slot) if without_ids(ref.process.actor) else rows[::-1]}

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


def without_ids(actor):
    """Whether the children of a supervisor are known by their slots."""
    return isinstance(actor, DynamicSupervisor) or actor.strategy is SIMPLE_ONE_FOR_ONE


def by_slot(row):
    slot, _, n, *_ = row
    return (slot is not None, slot or "", n or 0)
