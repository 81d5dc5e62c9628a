"""An agent with two tools on a model of 135 million parameters.

A few demos show it how; and it is held to the forms of the tools' arguments, so that even a model so small makes no
call that cannot be run.
"""

from __future__ import annotations

from typing import Any, Literal

import otpy
from otpy.programs.react import ReAct
from otpy.types.tool import ToolCalls

PRICES = {"tea": "3 euros", "coffee": "4 euros", "cake": "5 euros", "juice": "2 euros"}
HOURS = {"bakery": "6 o'clock", "bank": "9 o'clock", "library": "11 o'clock", "museum": "10 o'clock"}


def price(item: Literal["tea", "coffee", "cake", "juice"]) -> str:
    """Look up what something costs."""
    return PRICES[item]


async def opens(place: Literal["bakery", "bank", "library", "museum"]) -> str:
    """Look up when a place opens."""
    return HOURS[place]


def run(question: str, thought: str, tool: str, args: dict[str, Any], result: str) -> list[dict[str, Any]]:
    """The two steps of an agent that does well: it looks something up, and submits it."""
    first, last = (ToolCalls(tool_calls=[{"name": name, "args": given}])
                   for name, given in ((tool, args), ("submit", {"answer": result})))  # fmt: skip
    seen = f"thought: {thought}\n{first.tool_calls[0]} -> {result}"
    return [
        {"question": question, "trajectory": "(nothing yet)", "thought": thought, "tool_calls": first},
        {"question": question, "trajectory": seen, "thought": f"It is {result}.", "tool_calls": last},
    ]


demos = [
    *run("What does a juice cost?", "Look up the price of juice.", "price", {"item": "juice"}, "2 euros"),
    *run("When does the museum open?", "Look up when the museum opens.", "opens", {"place": "museum"}, "10 o'clock"),
    *run("What do you take for a cake?", "Look up the price of cake.", "price", {"item": "cake"}, "5 euros"),
    *run("When can I go to the bank?", "Look up when the bank opens.", "opens", {"place": "bank"}, "9 o'clock"),
]
agent = ReAct("question -> answer", [price, opens], max_iters=4, max_calls=1, max_tokens=120)
agent = agent.with_demos({"react": demos})

if __name__ == "__main__":
    with otpy.start(lm="local/smollm2-135m"):
        for question in ("What does a tea cost?", "When does the library open?"):
            found = agent(question=question)
            print(question)
            for step in found.trajectory:
                for call in step["calls"]:
                    print(f"  {call['name']}({call['args']}) -> {call['result']}")
            print(f"  answer: {found.answer} ({found.termination_reason})")
