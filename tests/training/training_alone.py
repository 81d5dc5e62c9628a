"""One training in an application of its own, to be killed: prints the model it ends in.

python training_alone.py PROGRAM
"""

import sys

import otpy
from otpy.lm import Message
from otpy.training import Record
from otpy.training.local import LocalTrainer


class Memory(dict):
    async def put(self, name, value):
        self[name] = value


RECORDS = [Record((Message("user", f"{n} + {n}"),), str(2 * n)) for n in range(5)]
trainer = LocalTrainer("smollm2-135m", program=lambda folder: [sys.executable, sys.argv[1], str(folder)])
with otpy.start(lm="openai/nobody", api_key="none", cache=False) as app:
    model = app.run(trainer.train(RECORDS, kind="sft", params={}, memory=Memory(), told=lambda _: None))
    print(model, flush=True)  # noqa: T201 - a program
