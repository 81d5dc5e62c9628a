"""A supervised price ticker: a feed that breaks now and then, a board that nobody loses, and a tree that says so.

    python examples/ticker.py --ticks 20 --break-every 7

Nothing here knows of language models; `otpy.actors` and `otpy.supervisors` stand alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from dataclasses import dataclass

import otpy


@dataclass(frozen=True, slots=True)
class Price(otpy.Cast):
    symbol: str
    value: float


@dataclass(frozen=True, slots=True)
class Latest(otpy.Call[dict[str, float]]):
    """The latest prices, as soon as there have been so many."""

    after: int = 0


class Board(otpy.GenServer):
    """Keeps the latest price of every symbol."""

    def init(self):
        self.prices, self.count, self.waiting = {}, 0, []

    def handle_cast(self, message):
        self.prices[message.symbol] = message.value
        self.count += 1
        for after, caller in self.waiting:
            if after == self.count:
                caller.reply(self.prices)

    def handle_call(self, request, caller):
        if self.count >= request.after:
            return self.prices
        self.waiting.append((request.after, caller))
        return otpy.NoReply()  # the answer comes later


class Feed(otpy.GenServer):
    """Sends a price to the board every few milliseconds; its source is unreliable."""

    def init(self, symbol, every, break_every):
        self.symbol, self.every, self.break_every = symbol, every, break_every
        self.price, self.ticks = 100.0, 0
        otpy.send_after(self.ref, self.every, "tick")

    def handle_info(self, message):
        self.ticks += 1
        if self.break_every and self.ticks % self.break_every == 0:
            raise ConnectionError(f"the source of {self.symbol} hung up")
        self.price *= 1 + random.gauss(0, 0.01)
        otpy.named("board").cast(Price(self.symbol, round(self.price, 2)))
        otpy.send_after(self.ref, self.every, "tick")


async def main(ticks: int, break_every: int) -> None:
    every = 0.01
    feeds = [Feed.child_spec(symbol, every, break_every, id=symbol) for symbol in ("EURUSD", "XAUUSD")]
    children = [
        Board.child_spec(name="board"),
        otpy.Supervisor.child_spec(feeds, id="feeds", max_restarts=ticks, max_seconds=5.0),
    ]
    # rest_for_one: without a board the feeds have nobody to tell, so they are restarted with it.
    async with otpy.Supervisor(children, strategy=otpy.REST_FOR_ONE) as tree:
        prices = await tree.child("board").call(Latest(after=ticks), timeout=60)
        print(*(f"{symbol} {price}" for symbol, price in sorted(prices.items())), sep="\n")
        print(tree.render())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=50, help="how many prices to wait for (default: %(default)s)")
    parser.add_argument("--break-every", type=int, default=7, help="the feed fails at every so many ticks; 0: never")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.ticks, arguments.break_every))
