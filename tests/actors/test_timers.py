"""Messages from the future."""

import asyncio
import time

import pytest

from otpy.actors import GenServer, send_after, send_interval
from otpy.testing import run_in_virtual_time


class Log(GenServer):
    def init(self):
        self.log = []

    def handle_info(self, message):
        self.log.append((message, round(asyncio.get_running_loop().time() - message, 3)))

    def handle_call(self, request, caller):
        return [moment for _, moment in self.log]


def now():
    return asyncio.get_running_loop().time()


def run(main):
    return run_in_virtual_time(main())


def test_a_message_arrives_when_it_is_due_unless_it_is_taken_back():
    async def main():
        log = await Log.start()
        timer, other = send_after(log, 1.0, now()), send_after(log, 2.0, now())
        await asyncio.sleep(1.5)
        assert (timer.fired, timer.cancel(), other.cancel(), other.cancel()) == (True, False, True, False)
        await asyncio.sleep(1)
        assert await log.call("log") == [1.0]

    run(main)


def test_an_interval_keeps_its_beat_until_it_is_cancelled():
    async def main():
        log = await Log.start()
        timer = send_interval(log, 0.5, now())
        await asyncio.sleep(1.75)
        assert timer.cancel()
        await asyncio.sleep(5)
        assert await log.call("log") == [0.5, 1.0, 1.5]

    run(main)


def test_beats_that_were_missed_are_left_out_and_the_rest_is_on_time():
    async def main():
        log = await Log.start()
        send_interval(log, 0.04, now())
        await asyncio.sleep(0.05)
        time.sleep(0.09)  # noqa: ASYNC251 - the loop is blocked past two beats
        await asyncio.sleep(0.04)
        beats = await log.call("log")
        await log.stop()
        return beats

    beats = asyncio.run(main())
    assert len(beats) in {3, 4}
    assert beats[-1] % 0.04 < 0.03


def test_an_interval_ends_with_its_process():
    async def main():
        log = await Log.start()
        timer = send_interval(log, 0.5, now())
        log.exit("kill")
        await asyncio.sleep(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert timer.cancel()

    run(main)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(interval):
    async def main():
        with pytest.raises(ValueError, match="allowed: seconds > 0"):
            send_interval(await Log.start(), interval, "tick")

    run(main)


def test_an_unexpected_message_is_logged(caplog):
    async def main():
        server = await GenServer.start()
        server.send("whatever")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main)
    assert "has no handle_info for 'whatever'" in caplog.text
