"""What a type checker knows about otpy's public names: checked by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from signal import Signals
from typing import Any, Literal, assert_type

import otpy
from otpy.actors import GroupsRef, ProcessInfo, RegistryRef, Timer, process_info, processes, sys
from otpy.clock import Clock, ManualClock, monotonic
from otpy.errors import AdapterParseError, EvaluationAborted, LMError, OtpyError, RateLimited
from otpy.lm import FrozenJSON, LMRequest, LMResponse, Message, Role, Usage
from otpy.supervisors import (
    ChildInfo,
    Counts,
    DynamicSupervisorRef,
    Exited,
    Ok,
    PartitionSupervisorRef,
    SupervisorRef,
    TaskSupervisorRef,
)
from otpy.types import Code, Decision, History, Image


def clocks() -> None:
    """A clock is anything that returns seconds."""
    clock: Clock = ManualClock()
    assert_type(clock(), float)
    other: Clock = monotonic
    assert_type(other(), float)


def words(request: LMRequest, response: LMResponse, message: Message) -> None:
    """Requests and answers are typed values."""
    assert_type(message.role, Role)
    assert_type(request.messages, tuple[Message, ...])
    assert_type(request.key(), str)
    assert_type(request.temperature, float | None)
    assert_type(response.usage + Usage(), Usage)
    assert_type(response.usage.total_tokens, int)
    assert_type(FrozenJSON.of({}).value, Any)


def errors(error: OtpyError) -> None:
    """Each error carries its fields."""
    assert_type(error.retryable, bool)
    if isinstance(error, RateLimited):
        assert_type(error.retry_after, float | None)
    if isinstance(error, LMError):
        assert_type(error.status, int | None)
    if isinstance(error, AdapterParseError):
        assert_type(error.missing, tuple[str, ...])
    if isinstance(error, EvaluationAborted):
        assert_type(error.result, Any)


def programs(question: otpy.Predict, thinking: otpy.ChainOfThought) -> None:
    """Calling a program gives a prediction; changing one gives one of the same kind."""
    assert_type(question(question="?"), otpy.Prediction)
    assert_type(question.with_config(temperature=0.5), otpy.Predict)
    assert_type(thinking.with_client("other"), otpy.ChainOfThought)
    assert_type(question.demos, tuple[otpy.Example, ...])


async def awaited(question: otpy.Predict) -> None:
    """Awaiting does too."""
    assert_type(await question.acall(question="?"), otpy.Prediction)


class Triage(otpy.Signature):
    """Classify."""

    query: str = otpy.InputField()
    intent: Literal["card", "pin"] = otpy.OutputField()
    sure: Decision[Literal["yes", "no"]] = otpy.OutputField()
    code: Code[Literal["python"]] = otpy.OutputField()


async def outputs(history: History) -> None:
    """A prediction of a class signature has the types of its outputs; one of the string form has `Any`."""
    triage = otpy.Predict(Triage)
    assert_type(triage, otpy.Predict[Triage])
    assert_type(triage(query="?").intent, Literal["card", "pin"])
    assert_type((await triage.acall(query="?")).sure.value, Literal["yes", "no"])
    assert_type(triage.with_config(temperature=0.5)(query="?").intent, Literal["card", "pin"])
    assert_type(triage(query="?").usage, Usage)
    assert_type(triage(query="?").code.code, str)
    assert_type(otpy.ChainOfThought(Triage)(query="?").intent, Literal["card", "pin"])
    predictors: list[otpy.Predict] = [triage]  # a predictor of a class signature is a predictor
    assert_type(predictors[0](query="?"), otpy.Prediction)
    assert_type(otpy.Predict("question -> answer"), otpy.Predict)
    assert_type(otpy.Predict("question -> answer")(question="?").answer, Any)
    assert_type(history.adding(triage(query="?"), query="?"), History)
    assert_type(Image("https://example.org/x.png", detail="low", allow_private=True), Image)
    assert_type(Image.from_path("x.png"), Image)


def evaluations(devset: list[otpy.Example], program: otpy.Predict) -> None:
    """An evaluation gives rows that are scored or failed; an optimizer gives a program of the same kind."""
    metric = otpy.exact_match("answer")
    result = otpy.Evaluate(devset, metric=metric)(program)
    assert_type(result, otpy.EvaluationResult)
    assert_type(result.score, float)
    assert_type(result.rows[0], otpy.Scored | otpy.Failed)
    optimizer: otpy.BootstrapFewShot[otpy.Predict] = otpy.BootstrapFewShot(metric)
    assert_type(optimizer.compile(program, trainset=devset), otpy.Predict)


def applications() -> None:
    """An application is entered with `with`, and shows its tree as text."""
    with otpy.start(lm="openai/some-model") as app:
        assert_type(app, otpy.Application)
        assert_type(app.render(), str)


@dataclass(frozen=True, slots=True)
class Pop(otpy.Call[int]):
    """A request that is answered with a number."""


class Stack(otpy.GenServer):
    """A server."""

    def depth(self) -> int:
        """Count."""
        return 0


async def actors(stack: otpy.Ref[otpy.GenServer]) -> None:
    """A request carries the type of its reply; starting a server gives a reference to one of its class."""
    assert_type(await stack.call(Pop(), timeout=1.0), int)
    assert_type(stack.call_sync(Pop()), int)
    assert_type(await Stack.start(1, 2), otpy.Ref[Stack])
    assert_type(await Stack.start_link(name="stack"), otpy.Ref[Stack])
    assert_type(Stack.child_spec(1, name="stack", restart="transient"), otpy.ChildSpec)
    assert_type(stack.cast("anything"), None)
    assert_type(await stack.offer("anything"), None)
    assert_type(otpy.whereis("stack"), otpy.Ref[Any] | None)
    assert_type(otpy.send_after(stack, 1.0, "tick"), Timer)


async def supervisors(specs: list[otpy.ChildSpec]) -> None:
    """A tree's reference administers it."""
    async with otpy.Supervisor(specs, strategy=otpy.ONE_FOR_ONE) as tree:
        assert_type(tree, SupervisorRef)
        assert_type(tree.render(), str)
        assert_type(await tree.count_children(), Counts)
        assert_type(await tree.which_children(), list[ChildInfo])
        assert_type(tree.child("any"), otpy.Ref[Any])
        assert_type(tree.child("tasks", TaskSupervisorRef), TaskSupervisorRef)


async def their_references() -> None:
    """Behaviours with functions of their own start with a reference that has them."""
    assert_type(await otpy.Supervisor.start_link([]), SupervisorRef)
    assert_type(await otpy.DynamicSupervisor.start(max_children=10), DynamicSupervisorRef)
    assert_type(await otpy.PartitionSupervisor.start(Stack.child_spec(), partitions=2), PartitionSupervisorRef)
    assert_type(await otpy.TaskSupervisor.start(name="tasks"), TaskSupervisorRef)
    assert_type(await otpy.Registry.start(), RegistryRef)
    assert_type(await otpy.Groups.start_link(), GroupsRef)


async def by_name() -> None:
    """A name carries the type of a reply too."""
    stack = otpy.named("stack")
    assert_type(await stack.call(Pop()), int)
    assert_type(stack.call_sync(Pop()), int)
    assert_type(stack.whereis(), otpy.Ref[Any] | None)
    assert_type(process_info(await Stack.start()), ProcessInfo)
    assert_type(processes(), list[otpy.Ref[Any]])
    assert_type(otpy.run(otpy.Supervisor([])), Signals | None)


async def double(number: int) -> str:
    """Work for tasks."""
    return str(2 * number)


def halve(number: int) -> float:
    """Work that blocks."""
    return number / 2


async def tasks(supervisor: TaskSupervisorRef) -> None:
    """Tasks and streams carry the type of their results."""
    assert_type(await otpy.Task.async_(double, 1), str)
    assert_type(await supervisor.async_nolink(double, 1), str)
    assert_type(await otpy.Task.async_(otpy.blocking(halve), 1), float)
    assert_type(await otpy.Task.async_(double, 1).yield_(), str | None)
    assert_type(supervisor.children(), list[otpy.Ref[Any]])
    assert_type(otpy.Task.child_spec(double, 1), otpy.ChildSpec)
    async for outcome in supervisor.async_stream(double, [1, 2], max_concurrency=2):
        assert_type(outcome, Ok[str] | Exited)
        if isinstance(outcome, Ok):
            assert_type(outcome.value, str)


def words_of_the_beginning() -> list[str]:
    """Make an agent's first state."""
    return []


async def agents() -> None:
    """An agent's functions are typed in its state."""
    agent = await otpy.Agent.start(words_of_the_beginning)
    assert_type(await agent.get(len), int)


async def looking_in(stack: otpy.Ref[Stack]) -> None:
    """The sys toolbox."""
    assert_type(await sys.get_status(stack), sys.Status)
    assert_type(await sys.statistics(stack), sys.Statistics | None)
