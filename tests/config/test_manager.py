"""The config manager: the one process that replaces the settings, and who hears of it."""

import pytest

from otpy.actors import KILL, GenServer
from otpy.config import Settings
from otpy.config.manager import Change, ConfigManager, CurrentSettings, SettingsBox, SettingsChanged, Subscribe
from otpy.errors import ConfigError
from otpy.supervisors import Supervisor
from otpy.testing import run_in_virtual_time

WARMER = {"clients.default.temperature": 0.9}


class Listener(GenServer):
    """Keeps what it is told."""

    def init(self):
        self.heard = []

    def handle_cast(self, message):
        self.heard.append(message)

    def handle_call(self, request, caller):
        return self.heard


def box():
    return SettingsBox(Settings.load(None, {}, {"clients": {"default": {"model": "openai/gpt-x"}}}))


def run(main):
    return run_in_virtual_time(main())


def test_a_change_is_seen_in_the_box_and_told_once_to_each_subscriber():
    async def main():
        held = box()
        manager = await ConfigManager.start(held)
        listeners = [await Listener.start() for _ in range(2)]
        for listener in (*listeners, listeners[0]):
            assert await manager.call(Subscribe(listener)) is held.current
        changed = await manager.call(Change(WARMER))
        assert held.current is changed
        assert changed.clients["default"].temperature == 0.9
        expected = [SettingsChanged(changed, ("clients.default.temperature",))]
        assert [await listener.call("heard") for listener in listeners] == [expected] * 2
        for process in (manager, *listeners):
            await process.stop()

    run(main)


def test_an_invalid_change_changes_nothing_and_tells_nobody():
    async def main():
        held = box()
        before = held.current
        manager, listener = await ConfigManager.start(held), await Listener.start()
        await manager.call(Subscribe(listener))
        with pytest.raises(ConfigError, match=r"^clients\.default\.max_tokens=0: "):
            await manager.call(Change(WARMER | {"clients.default.max_tokens": 0}))
        assert held.current is before
        assert manager.is_alive()
        assert await listener.call("heard") == []
        for process in (manager, listener):
            await process.stop()

    run(main)


def test_a_subscriber_that_is_gone_is_forgotten():
    async def main():
        manager, listener = await ConfigManager.start(box()), await Listener.start()
        await manager.call(Subscribe(listener))
        listener.exit(KILL)
        await listener.join()
        await manager.call(CurrentSettings())
        assert manager.process.actor.subscribers == {}
        await manager.stop()

    run(main)


def test_a_change_survives_the_manager_that_made_it():
    async def main():
        held = box()
        async with Supervisor([ConfigManager.child_spec(held, id="config")]) as tree:
            first = tree.child("config")
            await first.call(Change(WARMER))
            first.exit(KILL)
            await tree.settled()
            second = tree.child("config")
            assert second != first
            assert (await second.call(CurrentSettings())).clients["default"].temperature == 0.9

    run(main)
