"""A request's way through the client: caching, sharing, retrying, refusing, and what a crash on the way costs."""

import asyncio
import time

import pytest

import otpy
from otpy.actors import KILL
from otpy.clients.calls import ClientStatus
from otpy.errors import (
    ActorDown,
    CircuitOpen,
    ConfigError,
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
)
from otpy.lm import LMRequest, Message
from otpy.testing import LoopbackLM, Scripted

FAST = {"max_attempts": 4, "base": 0.01, "cap": 0.02}


def settings(server, *, cache=None, **client):
    return {
        "clients": {
            "default": {"model": "openai/scripted", "base_url": server.url, "api_key": "sk-secret", "retry": FAST}
            | client
        },
        "cache": cache or {"enabled": False},
    }


def request(text="hello", **parameters):
    return LMRequest((Message("user", text),), **parameters)


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


def ask(server, *texts, **client):
    """Ask each text once, at the same time; returns answers and errors."""

    async def main():
        async with otpy.start(settings=settings(server, **client)) as app:
            return await asyncio.gather(*(app.ask("default", request(text)) for text in texts), return_exceptions=True)

    return run(main)


def test_an_answer_and_what_it_cost():
    with LoopbackLM(lambda body: body["messages"][0]["content"].upper()) as server:
        (answer,) = ask(server, "hello world")
    assert (answer.text, answer.usage.input_tokens, answer.usage.requests) == ("HELLO WORLD", 2, 1)
    assert server.headers[0]["authorization"] == "Bearer sk-secret"


def test_a_hundred_identical_requests_at_once_are_one_request_upstream(tmp_path):
    with LoopbackLM(lambda _: Scripted("shared", hold=True)) as server:

        async def main():
            cache = {"path": str(tmp_path / "answers.sqlite")}
            async with otpy.start(settings=settings(server, cache=cache)) as app:
                asking = [asyncio.ensure_future(app.ask("default", request())) for _ in range(100)]
                await asyncio.to_thread(server.wait_for, 1)
                await asyncio.sleep(0.05)
                server.release()
                return await asyncio.gather(*asking)

        answers = run(main)
    assert [answer.text for answer in answers] == ["shared"] * 100
    assert len(server.requests) == 1


def test_without_a_cache_every_request_is_asked():
    with LoopbackLM() as server:
        ask(server, "same", "same", "same")
    assert len(server.requests) == 3


def test_answers_are_remembered_across_applications_and_across_sync_and_async_callers(tmp_path):
    cache = {"path": str(tmp_path / "answers.sqlite")}
    with LoopbackLM(lambda _: {"answer": "once"}) as server:
        program = otpy.Predict("question -> answer")
        with otpy.start(settings=settings(server, cache=cache)):
            first = program(question="q")

        async def main():
            async with otpy.start(settings=settings(server, cache=cache)):
                return await program.acall(question="q")

        second = run(main)
        assert first == second
        assert len(server.requests) == 1


def test_another_rollout_or_temperature_is_another_question(tmp_path):
    cache = {"path": str(tmp_path / "answers.sqlite")}
    with LoopbackLM() as server:

        async def main():
            async with otpy.start(settings=settings(server, cache=cache)) as app:
                for variant in ({}, {"rollout": 1}, {"temperature": 0.5}, {}, {"rollout": 1}):
                    await app.ask("default", request(**variant))

        run(main)
    assert len(server.requests) == 3
    assert all("rollout" not in body for body in server.requests)


def failing(times, then="ok", **failure):
    """Fail so many times, then answer."""
    left = [times]

    def script(_):
        left[0] -= 1
        return Scripted(**failure) if left[0] >= 0 else then

    return script


@pytest.mark.parametrize(
    "failure",
    [
        {"status": 500, "content": "oops"},
        {"status": 503, "content": "busy"},
        {"status": 429, "content": "slow down", "headers": {"retry-after-ms": "5"}},
        {"drop": True},
        {"body": b"<html>hiccup"},
        {"body": b'{"choices": ['},
    ],
    ids=["500", "503", "429", "dropped", "html", "cut"],
)
def test_what_may_pass_by_itself_is_tried_again(failure):
    with LoopbackLM(failing(2, **failure)) as server:
        (answer,) = ask(server, "hello")
    assert answer.text == "ok"
    assert len(server.requests) == 3


def test_retry_after_is_honoured():
    with LoopbackLM(failing(1, status=429, headers={"retry-after-ms": "300"})) as server:
        began = time.monotonic()
        (answer,) = ask(server, "hello")
    assert answer.text == "ok"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        ({"status": 401, "content": "bad key"}, LMAuthError, "check api_key in the settings"),
        ({"status": 404, "content": "no such model"}, LMStatusError, "check the model's name and base_url"),
        ({"status": 400, "content": "bad request"}, LMRequestInvalid, "refuses the request (400): bad request"),
        (
            {"status": 400, "body": b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'},
            LMContextWindowExceeded,
            "use fewer demos",
        ),
        (
            {"status": 429, "body": b'{"error": {"message": "pay", "code": "insufficient_quota"}}'},
            LMStatusError,
            "quota is used up",
        ),
    ],
)
def test_what_will_not_pass_is_not_tried_again_and_says_what_to_do(failure, error, words):
    with LoopbackLM(lambda _: Scripted(**failure)) as server:
        (answer,) = ask(server, "hello")
    assert isinstance(answer, error)
    assert words in str(answer)
    assert "sk-secret" not in repr(answer)
    assert len(server.requests) == 1


def test_a_refused_key_names_the_environment_variable_that_it_came_from(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with LoopbackLM(lambda _: Scripted(status=401, content="bad key")) as server:
        (answer,) = ask(server, "hello", api_key=None, api_key_env="MY_KEY")
        (without,) = ask(server, "hello", api_key=None)
    assert str(answer).endswith("bad key; check the environment variable MY_KEY")
    assert "none was sent" in str(without)


def test_an_answer_that_is_never_a_completion_is_a_typed_error():
    with LoopbackLM(lambda _: Scripted(body=b"<html>")) as server:
        (answer,) = ask(server, "hello")
    assert isinstance(answer, LMResponseInvalid)
    assert len(server.requests) == 4


def test_a_refused_connection_names_the_address_and_the_next_step():
    with LoopbackLM() as server:
        pass
    (answer,) = ask(server, "hello")
    assert isinstance(answer, LMConnectionError)
    assert f"127.0.0.1:{server.port}" in str(answer)
    assert "base_url" in str(answer)


def test_a_slow_answer_is_a_timeout():
    with LoopbackLM(lambda _: Scripted(hold=True)) as server:
        (answer,) = ask(server, "hello", timeout=0.05, retry={"max_attempts": 1})
    assert isinstance(answer, LMTimeout)


def test_one_failing_request_takes_no_other_along():
    def script(body):
        text = body["messages"][0]["content"]
        return Scripted("no", status=400) if text == "7" else text

    with LoopbackLM(script) as server:
        answers = ask(server, *map(str, range(20)))
    assert isinstance(answers[7], LMRequestInvalid)
    assert [answer.text for number, answer in enumerate(answers) if number != 7] == [
        str(number) for number in range(20) if number != 7
    ]


def test_no_more_requests_in_flight_than_allowed():
    with LoopbackLM(lambda _: Scripted(delay=0.01)) as server:
        ask(server, *map(str, range(20)), max_concurrency=3)
    assert server.peak_in_flight <= 3
    assert len(server.requests) == 20


def test_cancelling_the_caller_ends_its_worker_at_once_and_makes_room_for_the_next():
    with LoopbackLM(lambda body: Scripted("ok", hold=body["messages"][0]["content"] == "slow")) as server:

        async def main():
            async with otpy.start(settings=settings(server, max_concurrency=1)) as app:
                asking = asyncio.ensure_future(app.ask("default", request("slow")))
                await asyncio.to_thread(server.wait_for, 1)
                asking.cancel()
                answer = await app.ask("default", request("quick"))
                assert answer.text == "ok"
                assert not app.names.get(("workers", "default")).process.actor.tasks

        run(main)


def test_a_shared_request_is_cancelled_only_when_nobody_waits_for_it(tmp_path):
    with LoopbackLM(lambda _: Scripted("shared", hold=True)) as server:

        async def main():
            cache = {"path": str(tmp_path / "answers.sqlite")}
            async with otpy.start(settings=settings(server, cache=cache)) as app:
                first, second = [asyncio.ensure_future(app.ask("default", request())) for _ in range(2)]
                await asyncio.to_thread(server.wait_for, 1)
                flying = app.names.get(("client", "default")).process.actor.flying
                while len(next(iter(flying.values())).callers) < 2:  # the second has looked into the cache, too
                    await asyncio.sleep(0.001)
                first.cancel()
                await asyncio.sleep(0.02)
                server.release()
                assert (await second).text == "shared"

        run(main)
    assert server.disconnected == 0


class TestCrashes:
    """Law 1: kill it on the real path, and see who noticed, who restarted, and that nothing was lost."""

    def held(self, body, what, asked_again=0):
        """Hold five requests upstream, run `body(app)`, wait for those asked again, then let all be answered."""
        with LoopbackLM(lambda _: Scripted("survived", hold=True)) as server:

            async def main():
                async with otpy.start(settings=settings(server)) as app:
                    asking = [asyncio.ensure_future(app.ask("default", request(str(n)))) for n in range(5)]
                    await asyncio.to_thread(server.wait_for, 5)
                    await body(app)
                    await asyncio.to_thread(server.wait_for, 5 + asked_again)
                    server.release()
                    return [answer.text for answer in await asyncio.gather(*asking)], app.render()

            answers, tree = run(main)
        assert answers == ["survived"] * 5, what
        return server, tree

    def test_a_crashed_client_is_restarted_and_the_requests_on_their_way_are_answered_once(self):
        async def crash(app):
            old = app.names.get(("client", "default"))
            old.cast("a message that no callback knows")
            await old.join(5)
            assert await app.names.wait_for(("client", "default"), 5) != old

        server, tree = self.held(crash, "client")
        assert len(server.requests) == 5  # nothing was paid twice
        assert "restarts 1" in next(line for line in tree.splitlines() if "─ client " in line)

    def test_what_may_pass_by_itself_is_tried_again_even_if_the_client_that_would_decide_it_is_gone(self):
        with LoopbackLM(failing(1, status=503, hold=True)) as server:

            async def main():
                async with otpy.start(settings=settings(server)) as app:
                    asking = asyncio.ensure_future(app.ask("default", request()))
                    await asyncio.to_thread(server.wait_for, 1)
                    client = app.names.get(("client", "default"))
                    client.cast("a message that no callback knows")
                    await client.join(5)
                    server.release()
                    return (await asking).text

            assert run(main) == "ok"
        assert len(server.requests) == 2

    def test_a_killed_worker_costs_a_resend_of_its_own_request(self):
        async def kill(app):
            workers = app.names.get(("workers", "default")).process.actor
            next(iter(workers.tasks)).ref.exit(KILL)

        server, _ = self.held(kill, "worker", asked_again=1)
        assert len(server.requests) == 6

    def test_killed_workers_take_the_client_with_them_and_every_request_is_asked_again(self):
        async def kill(app):
            app.names.get(("workers", "default")).exit(KILL)

        server, tree = self.held(kill, "workers", asked_again=5)
        assert len(server.requests) == 10
        assert "restarts 1" in next(line for line in tree.splitlines() if "workers" in line)

    def test_a_killed_config_manager_restarts_everything_after_it_and_no_request_is_lost(self):
        async def kill(app):
            app.names.get("config").exit(KILL)

        server, _ = self.held(kill, "config")
        assert len(server.requests) >= 5

    def test_a_client_that_cannot_stay_up_is_a_typed_error_in_the_end(self):
        with LoopbackLM(lambda _: Scripted(hold=True)) as server:

            async def main():
                async with otpy.start(settings=settings(server)) as app:
                    asking = asyncio.ensure_future(app.ask("default", request()))
                    for number in range(1, 6):
                        await asyncio.to_thread(server.wait_for, number)
                        workers = app.names.get(("workers", "default")).process.actor
                        next(iter(workers.tasks)).ref.exit(KILL)
                    with pytest.raises(ActorDown):
                        await asking

            run(main)
        assert len(server.requests) == 5


class TestBreaker:
    def test_it_opens_after_repeated_failures_and_lets_one_trial_through(self):
        broken = [True]
        breaker = {"fail_max": 3, "reset_timeout": 0.2}

        with LoopbackLM(lambda _: Scripted("down", status=500) if broken[0] else "up") as server:

            async def main():
                config = settings(server, breaker=breaker, retry={"max_attempts": 1})
                async with otpy.start(settings=config) as app:
                    for number in range(3):
                        with pytest.raises(LMStatusError):
                            await app.ask("default", request(str(number)))
                    with pytest.raises(CircuitOpen) as caught:
                        await app.ask("default", request("refused"))
                    assert 0 < caught.value.until <= 0.2
                    assert ", circuit open (scripted)" in app.render()
                    broken[0] = False
                    await asyncio.sleep(0.25)
                    assert (await app.ask("default", request("trial"))).text == "up"
                    assert (await app.names.get(("client", "default")).call(ClientStatus()))["breaker"] == "closed"
                    assert "circuit" not in app.render()

            run(main)
        assert len(server.requests) == 4

    def test_requests_wait_out_a_short_outage(self):
        breaker = {"fail_max": 3, "reset_timeout": 0.1}
        with LoopbackLM(failing(4, status=500)) as server:
            answers = ask(server, *map(str, range(10)), breaker=breaker, max_concurrency=2,
                          retry={"max_attempts": 10, "base": 0.01, "cap": 0.05})  # fmt: skip
        assert [answer.text for answer in answers] == ["ok"] * 10

    def test_client_errors_are_no_vote(self):
        with LoopbackLM(lambda _: Scripted("no", status=400)) as server:
            answers = ask(server, *map(str, range(20)), breaker={"fail_max": 2}, max_concurrency=1)
        assert {type(answer) for answer in answers} == {LMRequestInvalid}

    def test_requests_behind_a_slow_trial_wait_for_its_outcome(self):
        asked = []

        def script(_):
            asked.append(1)
            return Scripted("down", status=500) if len(asked) == 1 else Scripted("up", delay=0.3)

        with LoopbackLM(script) as server:
            breaker = {"fail_max": 1, "reset_timeout": 0.05}
            answers = ask(server, *map(str, range(5)), breaker=breaker, max_concurrency=1,
                          retry={"max_attempts": 3, "base": 0.01})  # fmt: skip
        assert [answer.text for answer in answers] == ["up"] * 5


def test_a_key_that_the_server_repeats_is_in_no_error():
    with LoopbackLM(lambda _: Scripted("bad key sk-secret", status=401)) as server:
        (answer,) = ask(server, "hello")
    assert isinstance(answer, LMAuthError)
    assert "sk-secret" not in f"{answer} {answer.args} {answer.body}"
    assert "bad key ***" in str(answer)


def test_a_wait_that_is_too_long_fails_and_holds_nobody_else_back():
    def script(body):
        slow = body["messages"][0]["content"] == "slow"
        return Scripted("later", status=429, headers={"retry-after": "3000"}) if slow else "ok"

    with LoopbackLM(script) as server:
        answers = ask(server, "slow", "other", max_concurrency=1)
    assert isinstance(answers[0], LMStatusError)
    assert answers[0].retry_after == 3000
    assert answers[1].text == "ok"


class TestSettings:
    def test_a_missing_key_is_named_before_anything_is_asked(self, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(ConfigError, match="OPENAI_API_KEY"), otpy.start(lm="openai/gpt-x"):
            pass

    def test_an_unknown_client_is_named_with_those_there_are(self):
        with LoopbackLM() as server:

            async def main():
                async with otpy.start(settings=settings(server)) as app:
                    with pytest.raises(ConfigError, match="'other'; configured: 'default'"):
                        await app.ask("other", request())

            run(main)

    def test_a_change_while_running_reaches_the_next_request(self):
        with LoopbackLM() as server, otpy.start(settings=settings(server)) as app:
            app.run(app.ask("default", request("one")))
            app.change(clients__default__temperature=0.7)
            app.run(app.ask("default", request("two")))
            with pytest.raises(ConfigError, match="temperature=-1"):
                app.change(clients__default__temperature=-1)
            app.run(app.ask("default", request("three")))
        assert [body.get("temperature") for body in server.requests] == [None, 0.7, 0.7]

    def test_two_applications_in_one_process_never_mix(self):
        program = otpy.Predict("question -> answer")
        with LoopbackLM(lambda _: {"answer": "A"}) as one, LoopbackLM(lambda _: {"answer": "B"}) as two:

            async def main():
                async with otpy.start(settings=settings(one)) as first, otpy.start(settings=settings(two)) as second:

                    async def call(app, number):
                        with app.activate():
                            return (await program.acall(question=str(number))).answer

                    calls = [call(first if number % 2 else second, number) for number in range(200)]
                    return await asyncio.gather(*calls)

            answers = run(main)
        assert answers == ["B", "A"] * 100
        assert (len(one.requests), len(two.requests)) == (100, 100)


def test_requests_per_minute_hold_the_rest_back():
    with LoopbackLM() as server:

        async def main():
            async with otpy.start(settings=settings(server, requests_per_minute=3)) as app:
                asking = [asyncio.ensure_future(app.ask("default", request(str(n)))) for n in range(5)]
                await asyncio.to_thread(server.wait_for, 3)
                done, waiting = await asyncio.wait(asking, timeout=0.2)
                assert (len(done), len(waiting)) == (3, 2)
                assert "2 waiting" in app.render()
                for task in waiting:
                    task.cancel()

        run(main)
    assert len(server.requests) == 3
