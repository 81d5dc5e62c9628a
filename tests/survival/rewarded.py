"""A GRPO run with a scripted trainer as an OS process for tests: prints the client of the program it ends in.

python rewarded.py JOURNAL URL
"""

import os
import sys
from pathlib import Path

import otpy
from otpy.teleprompters.grpo import GRPO
from otpy.training.rewarded import Improved, RewardTrainer

PATH, URL = sys.argv[1:]
PROGRAM = Path(__file__).parents[1] / "training" / "fake_grpo.py"
ROWS = [otpy.Example(number=n, parity="odd" if n % 2 else "even") for n in range(4)]
SETTINGS = {
    "clients": {"default": {"model": "acme/base", "base_url": URL, "api_key": "none"}},
    "cache": {"enabled": False},
}


class Scripted(RewardTrainer):
    """The real trainer around a scripted program; its model is one of the fake provider."""

    def __init__(self):
        super().__init__("local/smollm2-135m", program=lambda folder: [sys.executable, str(PROGRAM), str(folder)])

    async def train(self, *args, **options):
        return Improved("acme/trained", (await super().train(*args, **options)).curve)


with otpy.start(settings=SETTINGS):
    grpo = GRPO(otpy.exact_match("parity"), num_train_steps=4, num_rollouts_per_grpo_step=2, trainer=Scripted())
    better = grpo.compile(
        otpy.Predict("number: int -> parity: Literal['even', 'odd']"), trainset=ROWS, valset=ROWS, journal=PATH
    )
os.write(1, better.client.encode())
