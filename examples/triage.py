"""Sort a workshop's mail, learn from examples, measure both, keep the better program.

python examples/triage.py                                           # a small model on this machine
python examples/triage.py --lm openai/gpt-5-mini                    # the key is in OPENAI_API_KEY
python examples/triage.py --lm any/name --base-url http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
from typing import Literal

import otpy


class Triage(otpy.Signature):
    """Say what a customer's message to a bicycle workshop is about."""

    message: str = otpy.InputField()
    topic: Literal["brakes", "lights", "price"] = otpy.OutputField()


TRAIN = {
    "It squeals when I stop.": "brakes",
    "The lever touches the handlebar.": "brakes",
    "What does a service cost?": "price",
    "Is there a discount for students?": "price",
    "The red one at the back is dead.": "lights",
    "Nobody sees me in the evening.": "lights",
}
DEV = {
    "Stopping takes me twice as long in the rain.": "brakes",
    "How much is a new chain?": "price",
    "The lamp flickers on bumps.": "lights",
    "What do I owe you for last week?": "price",
    "My front beam is too weak.": "lights",
    "The pads are worn down.": "brakes",
}


def examples(rows: dict[str, str]) -> list[otpy.Example]:
    return [otpy.Example(message=message, topic=topic).with_inputs("message") for message, topic in rows.items()]


def main(lm: str, base_url: str | None, out: str) -> None:
    triage = otpy.Predict(Triage)  # a value: it can be compared, saved, sent
    evaluate = otpy.Evaluate(examples(DEV), metric=otpy.exact_match("topic"), display_progress=True)
    with otpy.start(lm=lm, base_url=base_url, temperature=0) as app:
        before = evaluate(triage)
        better = otpy.LabeledFewShot(k=6).compile(triage, trainset=examples(TRAIN))
        after = evaluate(better)
        print(f"zero-shot: {before}")
        print(f"few-shot:  {after}")
        print(app.render())
    better.save(out)
    print(f"saved: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="local/smollm2-135m")
    parser.add_argument("--base-url", help="the address of an OpenAI-compatible server")
    parser.add_argument("--out", default="triage.json", help="where the better program goes (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.lm, arguments.base_url, arguments.out)
