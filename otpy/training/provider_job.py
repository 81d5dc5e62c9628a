"""`ProviderTrainer`: models trained at a provider, each job watched by a supervised process.

The process is the application's, under `teleprompters`; a crash of it, of the run it works for, or of the whole Python
process costs nothing: the job goes on at the provider, and the same call again finds it.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.actors import NORMAL, SHUTDOWN, Call, GenServer, NoReply, Restart, Stop, current_process, is_abnormal
from otpy.clients.dialects import codec
from otpy.clients.profiles import PROFILES
from otpy.clients.running import running
from otpy.clients.transport import open_transport
from otpy.errors import ActorDown, ConfigError, NotRegistered, TeleprompterError
from otpy.training.openai_files import Plan
from otpy.training.provider_course import Course, Provider
from otpy.training.records import lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otpy.actors import Caller, ChildSpec, Names, Process
    from otpy.clients.transport import Transport
    from otpy.config.settings import ClientSettings
    from otpy.supervisors import DynamicSupervisorRef
    from otpy.training.records import Record
    from otpy.training.trainer import Memory, Progress

__all__ = ["FineTuningJob", "ProviderTrainer"]

DIALECTS: Final = ("openai_chat", "openai_responses")
RESTART_SECONDS: Final = 5.0
"""How long to wait for a process that is being restarted."""
CANCEL_SECONDS: Final = 4.0
"""How long the provider has to take a cancellation; less than a process has to shut down."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Outcome:
    model: str = ""
    error: Exception | None = None


class _Ask(Call[_Outcome]):
    """Ask for what came of it; answered when that is known."""


class FineTuningJob(GenServer):
    """Watches one job. Killed, it is restarted and goes on with the same job.

    Args (of `child_spec`):
        course: The job's course.
        owner: Whose it is, if that is a process; without it nobody watches.
    """

    def init(self, course: Course, owner: Process | None) -> NoReply | Stop:
        """Begin as soon as the start has returned."""
        if owner is not None and not owner.alive:
            return Stop(SHUTDOWN)
        self.outcome = _Outcome()
        return NoReply(then=course)

    async def handle_continue(self, argument: Any) -> None:
        """See the job to its end."""
        try:
            self.outcome = _Outcome(await argument.run())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever asked
            self.outcome = _Outcome(error=error)

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Hand the outcome over, and end."""
        if isinstance(request, _Ask):
            return Stop(NORMAL, reply=self.outcome)
        return super().handle_call(request, caller)


class ProviderTrainer:
    """Trains at the provider of a client that speaks OpenAI's fine-tuning API; a `Trainer`.

    The records go there as a file, and a job is made for it, marked with a key of the base model, the records and the
    parameters. Outages are waited for. A job of the same key that goes on, or has succeeded, is taken over instead of
    paid for again, whoever began it.

    Args:
        client: The client's name: its provider, key and address are used, and its model is the one that is trained.
        learning_rate_multiplier: As the provider has it; it decides if `None`.
        suffix: A part of the new model's name.
        connect: Opens a transport to an address.

    Raises:
        TeleprompterError: If a parameter cannot be its value.

    Example:
        >>> from otpy.training.provider_job import ProviderTrainer
        >>> ProviderTrainer("openai")
        ProviderTrainer('openai')
    """

    def __init__(
        self,
        client: str = "default",
        *,
        learning_rate_multiplier: float | None = None,
        suffix: str | None = None,
        connect: Callable[[str], Transport] = open_transport,
    ) -> None:
        """Connect to nothing yet."""
        self._own = {"learning_rate_multiplier": learning_rate_multiplier, "suffix": suffix}
        Plan("", b"", self._own)  # refuses what cannot be
        self.client, self._connect = client, connect

    def __repr__(self) -> str:
        """Name the client."""
        return f"ProviderTrainer({self.client!r})"

    async def train(
        self,
        records: Sequence[Record],
        *,
        kind: str,
        params: Mapping[str, Any],
        memory: Memory,
        told: Callable[[Progress], object],
    ) -> str:
        """Train there, and return the new model, as clients are told it.

        Args:
            records: What to learn.
            kind: `"sft"`.
            params: `epochs`, `batch_size` and `seed`, and those of this trainer with other values.
            memory: Keeps the file's and the job's id.
            told: Called with how far it is.

        Raises:
            TeleprompterError: If the job failed, or an argument has no place in this API.
            ConfigError: If there is no such client, or it cannot train.
            LMError: If the provider cannot be asked, for a reason that does not pass.
        """
        if kind != "sft":
            raise TeleprompterError(f"kind={kind!r}: at a provider there is 'sft'; others need a local/… model")
        if not records:
            raise TeleprompterError("there are no records to learn")
        settings = self._settings()
        plan = Plan(settings.model_name, lines_of(records).encode(), {**self._own, **params})
        provider = self._provider(settings)
        try:
            model = await _watched(Course(provider, plan, memory, told))
        finally:
            await provider.transport.aclose()
        return f"{settings.provider}/{model}"

    def _settings(self) -> ClientSettings:
        clients = running().settings.clients
        if self.client not in clients:
            raise ConfigError(f"no client {self.client!r}; there are {', '.join(map(repr, clients))}")
        settings = clients[self.client]
        dialect = PROFILES[settings.effective_profile].dialect
        if settings.is_local or settings.url is None or dialect not in DIALECTS or settings.provider == "litellm":
            raise ConfigError(
                f"client {self.client!r} ({settings.model}) has no fine-tuning API that is known here; allowed: servers"
                " that speak OpenAI's, as openai/…, and local/… models, which are trained here"
            )
        return settings

    def _provider(self, settings: ClientSettings) -> Provider:
        assert settings.url is not None
        key, profile = settings.resolved_api_key(), PROFILES[settings.effective_profile]
        headers = () if key is None else codec(profile.dialect).key_headers(key.get_secret_value(), profile)
        return Provider(
            settings.url,
            self._connect(settings.url),
            headers=headers,
            key=key,
            timeout=settings.timeout,
            key_source=settings.key_source,
        )


async def _watched(course: Course) -> str:
    """Have a process see a job to its end; cancelling this cancels the job."""
    names, me = running().names, current_process()
    try:
        supervisor: Any = await names.wait_for("teleprompters", RESTART_SECONDS)
    except NotRegistered as error:
        raise ActorDown("the training", "its application has stopped") from error
    name = ("fine-tuning", next(_numbers))
    spec = FineTuningJob.child_spec(course, me, id=name, name=name, restart=Restart.TRANSIENT)

    def let_go(_: object = None) -> None:
        if (left := names.whereis(name)) is not None:
            left.exit(SHUTDOWN)  # to call its supervisor would be to wait for one that may wait for us

    number = None if me is None else me.when_down(let_go)
    try:
        outcome = await _outcome(names, supervisor, spec)
    except asyncio.CancelledError:
        let_go()
        if _not_wanted(me, supervisor):
            await _cancelled(course)
        raise
    finally:
        if me is not None and number is not None:
            me.forget(number)
        let_go()
    if outcome.error is not None:
        raise outcome.error
    return outcome.model


def _not_wanted(me: Process | None, supervisor: DynamicSupervisorRef) -> bool:
    """Whether it was cancelled by somebody; not if the process was killed, or the application is being stopped."""
    if me is None or me.dying is None:
        return True
    above: Any = supervisor.process
    return bool(not is_abnormal(me.dying) and above.alive and above.stopping is None)


async def _cancelled(course: Course) -> None:
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            why = await course.cancel()
    except TimeoutError:
        why = f"the fine-tuning job of this run could not be cancelled: no answer within {CANCEL_SECONDS:g} s"
    if why is not None:
        course.left(why)


async def _outcome(names: Names, supervisor: DynamicSupervisorRef, spec: ChildSpec) -> _Outcome:
    """Wait for a job through restarts of the process that watches it."""
    process = await supervisor.start_child(spec)
    while process is not None:
        try:
            return await process.call(_Ask(), None)
        except ActorDown as down:
            if not is_abnormal(down.reason) or not supervisor.is_alive():
                raise
        try:
            process = await names.wait_for(spec.id, RESTART_SECONDS)
        except NotRegistered as error:
            raise ActorDown(spec.id, "it was not restarted") from error
    raise ActorDown(spec.id, NORMAL)
