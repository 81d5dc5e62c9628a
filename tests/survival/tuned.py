"""A fine-tuning job as an OS process for tests: prints the new model's name.

python tuned.py JOURNAL URL
"""

import asyncio
import os
import sys

import otpy
from otpy.lm import Message
from otpy.teleprompters.run_journal import RunJournal
from otpy.training.provider_job import ProviderTrainer
from otpy.training.records import Record

PATH, URL = sys.argv[1:]
SETTINGS = {
    "clients": {"default": {"model": "openai/gpt-x", "base_url": URL, "api_key": "sk-of-this-test"}},
    "cache": {"enabled": False},
}


class Memory:
    """A journal as a memory."""

    def __init__(self, journal):
        self.journal = journal

    def get(self, name):
        return self.journal.about(name)

    async def put(self, name, value):
        await self.journal.note(name, value)


async def main():
    records = [Record((Message("user", f"{n} + 1"),), str(n + 1)) for n in range(12)]
    with RunJournal(PATH, {}) as journal:
        async with otpy.start(settings=SETTINGS):
            return await ProviderTrainer().train(
                records, kind="sft", params={"epochs": 2}, memory=Memory(journal), told=lambda _: None
            )


os.write(1, asyncio.run(main()).encode())
