"""The nodes of a scenario's tree: how each is started, what its worker does, and how OTP words what is refused."""

import asyncio

from world import World, exits

from otpy.actors import BRUTAL_KILL, INFINITY, ChildSpec, ExitMessage, GenServer, Ignore, Stop
from otpy.errors import AlreadyRegistered, InvalidChildSpec
from otpy.supervisors import DynamicSupervisor, Supervisor, SupervisorRef

SHUTDOWNS = {"brutal_kill": BRUTAL_KILL, "infinity": INFINITY}


class TreeWorld(World):
    """Knows the values that only supervisors make."""

    def value(self, reason):
        match reason:
            case AlreadyRegistered():
                return {"already_started": self.name(getattr(reason.owner, "process", reason.owner))}
            case InvalidChildSpec():
                return refusal(reason)
        return super().value(reason)


class Stillborn(GenServer):
    """A supervisor with a wrong spec: OTP looks at it in the supervisor's init, otpy before it starts anything."""

    ref_class = SupervisorRef

    def init(self, world, path, reason):
        world.entered(self.process, path)
        return Stop(reason)


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


class Grower:
    """Starts nodes."""

    def __init__(self):
        self.world = TreeWorld()
        self.flags = {}  # path of a supervisor -> its flags

    def spec(self, node, path, supervisor):
        """The child spec of a node; `supervisor` is the flags of the supervisor it is for."""
        if not isinstance(node, dict):
            return node
        fields = {"id": node.get("id"), "start": self.starter(node, path)}
        # Elixir's DynamicSupervisor does not look at `significant`
        known = ("restart", "type") if strategy_of(supervisor) == "dynamic" else ("restart", "type", "significant")
        fields |= {key: node[key] for key in known if key in node}
        if "shutdown" in node:
            shutdown = node["shutdown"]
            if isinstance(shutdown, str):
                shutdown = SHUTDOWNS.get(shutdown, shutdown)
            elif not isinstance(shutdown, bool) and isinstance(shutdown, (int, float)) and shutdown >= 0:
                shutdown /= 1000
            fields["shutdown"] = shutdown
        try:
            return ChildSpec(**{key: value for key, value in fields.items() if key not in node.get("omit", ())})
        except TypeError as error:  # a required argument is missing
            missing = "id" if "'id'" in str(error) else "start"
            raise InvalidChildSpec("missing", f"missing_{missing}", "a value") from None
        except InvalidChildSpec as error:
            never = supervisor.get("auto_shutdown", "never") == "never"
            if never and error.field.startswith("significant") and error.value is True:
                # a permanent significant child under `never` is wrong twice, and OTP looks at the other one first
                error.allowed = "False, unless the supervisor has auto_shutdown"
            raise

    def starter(self, node, path):
        if not node.get("template"):
            return lambda: self.start_node(node, path)

        def start(slot, worker):
            return self.start_node({**node, "worker": {**node.get("worker", {}), **worker}}, f"{path}/{slot}")

        return start

    async def start_node(self, node, path):
        try:
            return await self.start_process(node, path)
        except InvalidChildSpec as error:
            return await Stillborn.start(self.world, path, refusal(error))

    async def start_process(self, node, path):
        if "flags" not in node:
            name = node.get("worker", {}).get("register")
            return await Worker.start_link(self.world, path, node.get("worker", {}), name=name)
        flags, world, runner = node["flags"], self.world, self
        self.flags[path] = flags
        if not isinstance(flags, dict):
            raise InvalidChildSpec("flags", flags, "keyword arguments: nothing else can be written in Python")
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
                    early = outcome()
                    if early is not None:
                        return early
                    limits = {key: options[key] for key in ("max_restarts", "max_seconds")}
                    if flags.get("max_children", "infinity") != "infinity":
                        limits["max_children"] = flags["max_children"]
                    return super().init(**limits)

            return await Dynamic.start_link()

        class Tree(Supervisor):
            async def init(self):
                world.entered(self.process, path)
                early = outcome()
                if early is not None:
                    return early
                return await super().init()

        def specs():  # one after the other, after the flags: what is wrong first is what is refused
            for child in node.get("children", []):
                template = isinstance(child, dict) and child.get("template")
                yield runner.spec(child, path if template else f"{path}/{named(child)}", flags)

        return await Tree.start_link(specs(), **options)


def strategy_of(flags):
    return flags.get("strategy", "one_for_one") if isinstance(flags, dict) else None


def named(node):
    """The last part of a node's path."""
    return node.get("id") if isinstance(node, dict) else node


FLAGS = {"strategy": "invalid_strategy", "max_restarts": "invalid_intensity", "max_seconds": "invalid_period",
         "auto_shutdown": "invalid_auto_shutdown", "max_children": "invalid_max_children",
         "flags": "invalid_type"}  # fmt: skip
FIELDS = {"restart": "invalid_restart_type", "shutdown": "invalid_shutdown", "type": "invalid_child_type",
          "significant": "invalid_significant", "child": "invalid_child_spec"}  # fmt: skip


def refusal(error):
    """What a supervisor that cannot be started says."""
    if error.field in FLAGS:
        return {"supervisor_data": {FLAGS[error.field]: error.value}}
    if error.field == "children":
        return "bad_start_spec"
    return {"start_spec": invalid(error)}


def invalid(error):
    """A refused spec as OTP words it."""
    field = error.field.partition(" ")[0]
    if field == "missing":
        return error.value
    if field == "significant" and error.value is True:
        combined = {"restart": "permanent"} if "permanent" in error.allowed else {"auto_shutdown": "never"}
        return {"bad_combination": [combined, {"significant": True}]}
    if field == "id":
        return {"duplicate_child_name": error.value}
    return {FIELDS.get(field, field): error.value}
