"""Makes the states in this directory with DSPy itself, so that what is read are its own files.

    python -m venv dspy-venv && dspy-venv/bin/pip install dspy==3.4.1
    dspy-venv/bin/python tests/programs/dspy_states/make.py

No model is asked: demos and instructions are set by hand, as an optimizer would.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dspy

HERE = Path(__file__).parent


class Triage(dspy.Signature):
    """Classify the customer's query."""

    query: str = dspy.InputField(desc="what the customer wrote")
    intent: str = dspy.OutputField(desc="what it is about")


class Turned(dspy.Signature):
    """Classify the customer's query."""

    urgency: str = dspy.InputField(desc="how soon")
    query: str = dspy.InputField(desc="what the customer wrote")
    intent: str = dspy.OutputField(desc="what it is about")


class Two(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rewrite = dspy.Predict("question -> query")
        self.answer = dspy.ChainOfThought("query -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.answer(query=self.rewrite(question=question).query)


class Steps(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [dspy.Predict("a -> b"), dspy.Predict("b -> c")]
        self.named = {"last one": dspy.Predict("c -> d")}

    def forward(self, a: str) -> dspy.Prediction: ...


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


predict = dspy.Predict(Triage)
predict.demos = [dspy.Example(query="Where is it?", intent="arrival")]
predict.save(HERE / "predict.json")

predict.lm = dspy.LM("openai/gpt-4o-mini", temperature=0.3, max_tokens=50, api_key="not saved by DSPy")
predict.save(HERE / "lm.json")

dspy.Predict(Triage, temperature=0.3, max_tokens=50).save(HERE / "config.json")

turned = dspy.Predict(Turned)
turned.demos = [dspy.Example(query="Where is it?", urgency="high", intent="arrival")]
turned.save(HERE / "turned.json")

thought = dspy.ChainOfThought("question -> answer: int")
thought.predict.signature = thought.predict.signature.with_instructions("Think, then answer.")
thought.predict.demos = [
    dspy.Example(augmented=True, question="2 + 2?", reasoning="two and two", answer=4),
    dspy.Example(question="1 + 1?", answer=2),
]
thought.save(HERE / "chain_of_thought.json")

two = Two()
two.rewrite.demos = [dspy.Example(augmented=True, question="who?", query="person")]
two.answer.predict.demos = [dspy.Example(augmented=True, query="person", reasoning="r", answer="Ada")]
two.save(HERE / "two.json")

Steps().save(HERE / "steps.json")

dated = dspy.Predict("question -> day: datetime.date", custom_types={"datetime": dt})
dated.demos = [dspy.Example(question="when?", day=dt.date(2026, 1, 2))]
dated.save(HERE / "dated.json")

dspy.ReAct("question -> answer", tools=[add], max_iters=3).save(HERE / "react.json")

ensemble = dspy.Ensemble(reduce_fn=dspy.majority).compile([Two(), Two()])
ensemble.save(HERE / "ensemble.json")
