"""Scenarios of the process kind: servers that run scripts, and a client that starts, calls, watches and ends them."""

import asyncio

from world import Raised, World, exits

from otpy.actors import (
    KILL,
    NORMAL,
    BadReturnValue,
    Down,
    Exit,
    ExitMessage,
    GenServer,
    Ignore,
    Names,
    NoReply,
    Reply,
    Stop,
    Timeout,
    names_context,
)
from otpy.actors.process import current_process
from otpy.errors import ActorDown, AlreadyRegistered, CallTimeout, StartFailed


class Fired:
    """What `start_timer` sends: told apart from a plain message by the name of its timer."""

    def __init__(self, timer, message):
        self.timer, self.message = timer, message


class Script:
    """A script on its way to `handle_info`."""

    def __init__(self, actions):
        self.actions = actions


class Actor(GenServer):
    """Executes scripts."""

    async def init(self, world, options):
        self.world, self.options, self.path = world, options, options["name"]
        self.trap_exit = bool(options.get("trap_exit"))
        self.counter, self.monitors, self.flushed = 0, {}, set()
        self.n = world.entered(self.process, self.path)
        return await self.run(options.get("init", []), None, "init")

    async def handle_call(self, request, caller):
        return await self.run(request, caller, "call")

    async def handle_cast(self, message):
        return await self.run(message, None, "cast")

    async def handle_continue(self, argument):
        return await self.run(argument, None, "continue")

    async def handle_info(self, message):
        if isinstance(message, Script):
            return await self.run(message.actions, None, "info")
        name = self.world.name
        match message:
            case ExitMessage(process=ref, reason=reason):
                told = {"EXIT": [name(None if ref is None else ref.process), self.world.value(reason)]}
            case Down(monitor=monitor, process=ref, reason=reason):
                if monitor in self.flushed:
                    return None
                known = next((key for key, value in self.monitors.items() if value is monitor), None)
                told = {"DOWN": [known, name(ref.process), self.world.value(reason)]}
            case Fired():
                told = {"timeout": [message.timer, message.message]}
            case Timeout():
                told = "timeout"
            case _:
                told = message
        self.world.log("info", self.path, self.n, told)
        if isinstance(message, ExitMessage) and self.options.get("on_exit") == "stop":
            return Stop(message.reason)
        if "on_info" in self.options:
            return await self.run(self.options["on_info"], None, "info")
        return None

    async def terminate(self, reason):
        self.world.log("terminate", self.path, self.n, self.world.value(reason))
        await self.run(self.options.get("terminate", []), None, "terminate")

    # -- scripts ---------------------------------------------------------------------------------------------------

    async def run(self, actions, caller, where):
        for action in actions:
            if action["do"] == "return":
                return self.returned(action, where)
            await getattr(self, "do_" + action["do"])(action, caller)
        return "ok" if where == "call" else None

    def returned(self, action, where):
        timeout = action["timeout"] / 1000 if "timeout" in action else None
        then = action.get("continue")
        if "raw" in action:
            if where in {"call", "init"}:  # any value is an answer in otpy: what OTP would refuse is raised instead
                key = "bad_return_value"
                raise Exit({key: action["raw"]})
            return action["raw"]
        if "stop" in action:
            reason = self.world.reason(action["stop"])
            return Stop(reason, reply=action["reply"]) if "reply" in action else Stop(reason)
        if action.get("ignore"):
            return Ignore()
        if where == "call" and "reply" in action:
            return Reply(action["reply"], timeout, then)
        if where == "call" or timeout is not None or then is not None:
            return NoReply(timeout, then)
        return None

    def log(self, value):
        self.world.log("log", self.path, self.n, value)

    def target(self, to):
        if to == "self":
            return self.process
        return self.world.target(to)

    async def do_log(self, action, caller):
        self.log(action["v"])

    async def do_incr(self, action, caller):
        self.counter += 1
        self.log({"count": self.counter})

    async def do_sleep(self, action, caller):
        await asyncio.sleep(action["ms"] / 1000)

    async def do_raise(self, action, caller):
        exits(action["class"], self.world.reason(action["value"]))

    async def do_trap_exit(self, action, caller):
        self.trap_exit = action["value"]

    async def do_save_from(self, action, caller):
        self.world.slots[action["slot"]] = caller

    async def do_reply(self, action, caller):
        self.world.slots[action["slot"]].reply(action["value"])

    async def do_send(self, action, caller):
        target = self.target(action["to"])
        message = Script(action["script"]) if "script" in action else action.get("msg")
        if target is None:
            raise Exit("badarg")
        target.ref.send(message)

    async def do_cast(self, action, caller):
        target = self.target(action["to"])
        if target is not None:
            target.ref.cast(action.get("script", []))

    async def do_call(self, action, caller):
        try:
            answer = await self.world.call(self.target(action["to"]), action)
        except (ActorDown, CallTimeout) as error:
            if not action.get("catch"):
                raise Exit(error) from None
            self.log({"call": {"exit": self.world.value(error)}})
        else:
            self.log({"call": {"reply": answer}})

    async def do_send_after(self, action, caller):
        self.world.timer(action, self.target(action.get("to", "self")), action.get("msg"))

    async def do_start_timer(self, action, caller):
        message = Fired(action["timer"], action.get("msg"))
        self.world.timer(action, self.target(action.get("to", "self")), message)

    async def do_cancel_timer(self, action, caller):
        timer = self.world.timers.get(action["timer"])
        self.log({"cancel_timer": [action["timer"], timer is not None and timer.cancel()]})

    async def do_link(self, action, caller):
        try:
            self.process.link(self.target(action["to"]))
        except ActorDown as down:
            if not action.get("catch"):
                raise Raised(down.reason) from None
            self.log({"link": down.reason})
        else:
            if action.get("catch"):
                self.log({"link": True})

    async def do_unlink(self, action, caller):
        self.process.unlink(self.target(action["to"]))

    async def do_monitor(self, action, caller):
        self.monitors[action["ref"]] = self.process.monitor(self.target(action["to"]))

    async def do_demonitor(self, action, caller):
        monitor = self.monitors[action["ref"]]
        active = self.process.demonitor(monitor)
        if action.get("flush"):
            self.flushed.add(monitor)
        if action.get("info"):
            self.log({"demonitor": active})

    async def do_exit_signal(self, action, caller):
        target, reason = self.target(action.get("to", "self")), self.world.reason(action["reason"])
        target.ref.exit(reason)
        if target is self.process:
            self.log("survived")

    async def do_start(self, action, caller):
        result = await self.world.start(action)
        if not action.get("quiet"):
            self.log({"start": result})

    async def do_register(self, action, caller):
        try:
            self.world.names.register(action["name"], self.target(action.get("to", "self")))
        except (AlreadyRegistered, ActorDown):
            self.log({"register": "badarg"})
        else:
            self.log({"register": True})

    async def do_unregister(self, action, caller):
        self.log({"unregister": True if self.world.names.unregister(action["name"]) else "badarg"})

    async def do_whereis(self, action, caller):
        ref = self.world.names.whereis(action["name"])
        self.log({"whereis": None if ref is None else self.world.name(ref.process)})

    async def do_is_alive(self, action, caller):
        self.log({"is_alive": self.target(action["to"]).alive})


class Client(GenServer):
    """Performs the steps; what comes to it unasked is observed."""

    trap_exit = True

    def init(self, world):
        self.world, self.monitors, self.flushed = world, {}, set()

    async def handle_call(self, request, caller):
        return await request()

    def handle_info(self, message):
        world = self.world
        match message:
            case ExitMessage(process=ref, reason=reason):
                world.observed.append({"EXIT": [world.name(ref.process), world.value(reason)]})
            case Down(monitor=monitor, process=ref, reason=reason):
                if monitor not in self.flushed:
                    key, by_name = self.monitors[monitor]
                    world.observed.append({"DOWN": [key, by_name or world.name(ref.process), world.value(reason)]})
            case _:
                world.observed.append(message)


class Playground(World):
    """A world without a tree."""

    def __init__(self):
        super().__init__()
        self.names, self.slots, self.timers = Names(), {}, {}

    def target(self, to):
        if isinstance(to, dict):
            ref = self.names.whereis(to["name"])
            return None if ref is None else ref.process
        return self.find(to)

    async def call(self, target, options):
        timeout = options.get("timeout", 5000)
        if target is None:
            raise ActorDown(options["to"], "noproc")
        return await target.ref.call(options.get("script", []), None if timeout == "infinity" else timeout / 1000)

    def timer(self, options, target, message):
        from otpy.actors import send_after

        self.timers[options["timer"]] = send_after(target.ref, options["ms"] / 1000, message)

    async def start(self, options):
        function = Actor.start_link if options.get("link") else Actor.start
        starting = asyncio.ensure_future(function(self, options, name=options.get("register")))
        try:
            timeout = options.get("timeout")
            ref = await asyncio.wait_for(starting, None if timeout is None else timeout / 1000)
        except AlreadyRegistered as error:
            return {"error": {"already_started": self.name(error.owner)}}
        except StartFailed as failed:
            return "ignore" if failed.reason == "ignore" else {"error": self.value(failed.reason)}
        except TimeoutError:
            return {"error": "timeout"}
        return {"ok": self.name(ref.process)}


class Runner:
    """One scenario."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.world = Playground()

    async def run(self):
        """Yield each expected step result with what otpy did."""
        names_context.set(self.world.names)
        self.client, self.external = await Client.start(self.world), await Client.start(self.world)
        for name, ref in (("client", self.client), ("external", self.external)):
            self.world.outside[ref.process] = name
        self.world.processes.append(self.client.process)
        for number, step in enumerate(self.scenario["steps"]):
            operation = getattr(self, "op_" + step["op"])
            result = await self.client.call(lambda step=step, operation=operation: operation(step), None)
            if step.get("settle") is False:
                yield f"step {number} {step['op']}", step["expect"], {"result": result}
                continue
            await self.world.settle()
            yield f"step {number} {step['op']}", step["expect"], {"result": result, **self.world.taken()}

    async def op_start(self, step):
        return await self.world.start(step)

    async def op_call(self, step):
        return await self.called(step)

    async def called(self, step):
        try:
            return {"reply": await self.world.call(self.world.target(step["to"]), step)}
        except (ActorDown, CallTimeout) as error:
            return {"exit": self.world.value(error)}

    async def op_call_async(self, step):
        async def ask():
            result = await self.called(step)
            self.world.finished.append([step["tag"], result])

        self.world.asking = [*getattr(self.world, "asking", []), asyncio.ensure_future(ask())]
        await asyncio.sleep(0)

    async def op_cast(self, step):
        target = self.world.target(step["to"])
        if target is not None:
            target.ref.cast(step.get("script", []))
        return "ok"

    async def op_send(self, step):
        target = self.world.target(step["to"])
        if target is None:
            return {"raised": "badarg"}
        target.ref.send(Script(step["script"]) if "script" in step else step.get("msg"))
        return "ok"

    async def op_exit(self, step):
        sender = self.client if step.get("from") == "client" else self.external
        self.world.target(step["to"]).signal(sender.process, self.world.reason(step["reason"]))

    async def op_stop(self, step):
        process, reason = self.world.target(step["to"]), self.world.reason(step.get("reason", NORMAL))
        if process is None or not process.alive:
            return {"exit": "noproc"}
        timeout = step.get("timeout", "infinity")
        stopping = process.ref.stop(reason)
        try:
            async with asyncio.timeout(None if timeout == "infinity" else timeout / 1000):
                await stopping
        except TimeoutError:
            return {"exit": "timeout"}
        return "ok" if process.exit_reason == reason else {"exit": self.world.value(process.exit_reason)}

    async def op_monitor(self, step):
        target, client = self.world.target(step["to"]), self.client.process
        by_name = step["to"] if isinstance(step["to"], dict) else None
        if target is None:
            self.world.observed.append({"DOWN": [step["ref"], by_name, "noproc"]})
            return
        monitor = client.monitor(target)
        client.actor.monitors[monitor] = (step["ref"], by_name)

    async def op_demonitor(self, step):
        actor = self.client.process.actor
        for monitor, (key, _) in actor.monitors.items():
            if key == step["ref"]:
                self.client.process.demonitor(monitor)
                if step.get("flush"):
                    actor.flushed.add(monitor)

    async def op_link(self, step):
        self.client.process.link(self.world.target(step["to"]))
        return "ok"

    async def op_unlink(self, step):
        self.client.process.unlink(self.world.target(step["to"]))
        return "ok"

    async def op_register(self, step):
        self.world.names.register(step["name"], self.world.target(step["to"]))
        return "ok"

    async def op_whereis(self, step):
        ref = self.world.names.whereis(step["name"])
        return {"ok": None if ref is None else self.world.name(ref.process)}

    async def op_is_alive(self, step):
        return {"ok": self.world.target(step["to"]).alive}

    async def op_wait(self, step):
        await asyncio.sleep(step["ms"] / 1000)

    async def op_settle(self, step):
        return None


_ = (KILL, BadReturnValue, current_process)
