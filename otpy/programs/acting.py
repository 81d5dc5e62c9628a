"""The steps of an agent: what it thought, which tools it used, what came of that; and the predictor that takes one.

Source of the form: Yao et al. 2022, "ReAct: Synergizing Reasoning and Acting in Language Models".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.adapters import as_text
from otpy.clients.history import over
from otpy.clients.profiles import PROFILES
from otpy.clients.running import running
from otpy.lm import LMRequest, Message, Part, Text, Usage
from otpy.programs.predict import Predict
from otpy.programs.trace import asking, begun, record, relabelled, signed, spent
from otpy.signatures import Prediction
from otpy.signatures.example import came_of
from otpy.types.tool import ToolCalls, ToolResults

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.lm import LMResponse
    from otpy.lm import Tool as Definition
    from otpy.programs.lanes import Place
    from otpy.signatures import Signature

__all__ = ["NO_TOOL", "Act", "Step", "as_data", "as_trajectory", "has_tools"]

NO_TOOL: Final = "No tool was used. Use one; if the outputs are known, use submit."
"""What a model is told that only talked."""
NOTHING: Final = "(nothing yet)"
"""The trajectory before the first step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an agent.

    Args:
        thought: What the model said beside its calls.
        calls: Which tools it wanted to be used.
        results: What came of each, in the same order.
        said: The model's answer in its parts, as its provider wants to have it back; empty if it was written as text.
    """

    thought: str
    calls: ToolCalls
    results: ToolResults
    said: tuple[Part, ...] = ()

    def turns(self) -> tuple[Message, Message]:
        """Return it as turns of a conversation with native tool use."""
        calls = ToolCalls.of_parts(self.said).parts()
        told = ToolResults(
            tool_results=tuple(
                result.model_copy(update={"id": cast("Any", use).id})
                for use, result in zip(calls, self.results.tool_results, strict=True)
            )
        )
        said = self.said if calls or any(isinstance(part, Text) and part.text for part in self.said) else (Text("…"),)
        return Message("assistant", said), Message("user", told.parts() or NO_TOOL)

    def __str__(self) -> str:
        """Put it into words, for a model that knows no tools."""
        lines = [f"thought: {self.thought}"] if self.thought else []
        pairs = zip(self.calls.tool_calls, self.results.tool_results, strict=True)
        lines += [f"{call} -> {result.content}" for call, result in pairs]
        return "\n".join(lines if self.calls.tool_calls else [*lines, NO_TOOL])


def as_trajectory(steps: Iterable[Step]) -> str:
    """Return steps in words, oldest first.

    Example:
        >>> from otpy.programs.acting import Step, as_trajectory
        >>> from otpy.types.tool import ToolCalls, ToolResults
        >>> calls = ToolCalls(tool_calls=[{"name": "weather", "args": {"city": "Bonn"}}])
        >>> results = ToolResults(tool_results=[{"name": "weather", "content": "rain"}])
        >>> print(as_trajectory([Step("Look outside.", calls, results)]))
        thought: Look outside.
        weather(city="Bonn") -> rain
    """
    return "\n".join(map(str, steps)) or NOTHING


def as_data(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return steps as JSON data: each with its thought and its calls, these with name, arguments and result.

    Args:
        steps: The steps.
    """
    return [
        {
            "thought": step.thought,
            "calls": [
                {"name": call.name, "args": call.args, "result": result.content, "is_error": result.is_error}
                for call, result in zip(step.calls.tool_calls, step.results.tool_results, strict=True)
            ],
        }
        for step in steps
    ]


def has_tools(client: str) -> bool:
    """Return whether the deployments behind a client's name take native tools, by what their profiles say.

    Those that take `tools` but ignore `tool_choice` are small local servers, whose templates know tools for some models
    and not for others: they count as having none.

    Args:
        client: The name of a client or a route.
    """
    settings: Any = cast("Any", running()).settings
    route = settings.routes.get(client)
    members = [settings.clients.get(name) for name in ((client,) if route is None else route.members)]
    lacking = (PROFILES[member.effective_profile].lacks for member in members if member is not None)
    return all(not {"tools", "tool_choice"} & set(lacks) for lacks in lacking)


class Act(Predict):
    """The predictor of an agent's next step: as `Predict`, and in conversations with native tool use."""

    __slots__ = ()

    def __init__(self, signature: type[Signature] | str, **config: Any) -> None:
        """Check everything."""
        super().__init__(signature, **config)

    async def step(
        self, inputs: Mapping[str, Any], steps: tuple[Step, ...], tools: tuple[Definition, ...] | None
    ) -> tuple[str, ToolCalls, tuple[Part, ...]]:
        """Ask what to do next; returns the thought, the calls, and the answer's parts if tools were native.

        Args:
            inputs: The agent's inputs, validated.
            steps: The steps so far, oldest first.
            tools: The tools, if the model has native ones; else they are written as text.

        Raises:
            AdapterParseError: If what was written as text is no call of a tool, after all re-asks.
            ClientError: If the model could not be asked.
        """
        values = {**inputs, "trajectory": as_trajectory(steps)}
        if tools is None:
            prediction = await self.acall(**values)
            calls = ToolCalls(tool_calls=prediction.tool_calls.tool_calls)
            return prediction.thought, calls, ()
        messages = (
            Message("system", self._instructions()),
            Message("user", self._inputs_text(inputs)),
            *(turn for step in steps for turn in step.turns()),
        )
        request = LMRequest(messages, None, self.temperature, self.max_tokens, rollout=self.rollout, tools=tools)
        said, place = signed(self), begun()
        try:
            number = asking(request)
            try:
                response = await running().ask(self.client, request)
            finally:
                over(request)
            return self._taken(values, response, number, place)
        finally:
            if said is not None:
                relabelled(said)

    def _taken(
        self, values: Mapping[str, Any], response: LMResponse, number: int, place: Place
    ) -> tuple[str, ToolCalls, tuple[Part, ...]]:
        usage = Usage() if response.cached else response.usage
        spent(usage)
        thought, calls = response.text.strip(), ToolCalls.of_parts(response.parts)
        prediction = Prediction(thought=thought, tool_calls=calls, usage=usage, attempts=(response.text,))
        record(self, values, came_of(prediction, (number,)), place)
        return thought, calls, response.content

    def _instructions(self) -> str:
        """The part that is the same for all inputs; demos are told, not played: they lack what providers sign."""
        lines = [self.signature.instructions, ""]
        fields = [field for name, field in self.signature.input_fields.items() if name != "trajectory"]
        lines += [f"Input `{field.name}`" + (f": {field.desc}" if field.desc else "") for field in fields]
        for number, demo in enumerate(self.demos, 1):
            lines += ["", f"Example {number}:", self._inputs_text(demo), f"steps so far: {demo['trajectory']}"]
            lines += [f"thought: {demo['thought']}"] if demo["thought"] else []
            lines += [f"uses: {call}" for call in demo["tool_calls"].tool_calls]
        return "\n".join(lines)

    def _inputs_text(self, inputs: Mapping[str, Any]) -> str:
        plain = self.signature.dump_inputs({**inputs, "trajectory": ""})
        return "\n".join(f"{name}: {as_text(value)}" for name, value in plain.items() if name != "trajectory")
