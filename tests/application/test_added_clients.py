"""A client that is added while the application runs is supervised, found and restarted like the others."""

import asyncio

import pytest

import otpy
from otpy.errors import ConfigError, ModelNotAvailable
from otpy.testing import LoopbackLM

HASH = "0123456789ab"


def app_of(server):
    return otpy.start(lm="openai/one", base_url=server.url, api_key="none", cache=False)


def other(server):
    return {"model": "openai/two", "base_url": server.url, "api_key": "none"}


def ask(client):
    return otpy.Predict("question -> answer", client=client)(question="?").answer


def server_():
    return LoopbackLM(lambda request: {"answer": request["model"]})


def test_an_added_client_is_asked_at_once():
    with server_() as server, app_of(server) as app:
        app.add_client("second", **other(server))
        assert ask("second") == "two"
        assert ask("default") == "one"
        assert "second" in app.render()


def test_an_added_client_comes_back_when_the_supervisor_of_all_clients_was_killed():
    with server_() as server, app_of(server) as app:
        app.add_client("second", **other(server))

        async def kill():
            before = app.names.get("clients")
            before.exit("kill")
            while app.names.whereis(("client", "second")) is None or app.names.whereis("clients") == before:
                await asyncio.sleep(0)
            await app.names.wait_for(("client", "second"), 5.0)

        app.run(kill())
        assert ask("second") == "two"


def test_an_added_client_comes_back_when_it_was_killed():
    with server_() as server, app_of(server) as app:
        app.add_client("second", **other(server))

        async def kill():
            before = app.names.get(("client", "second"))
            before.exit("kill")
            while app.names.whereis(("client", "second")) in {None, before}:
                await asyncio.sleep(0)

        app.run(kill())
        assert ask("second") == "two"


def test_the_same_client_again_is_no_error_also_at_the_same_time():
    with server_() as server, app_of(server) as app:

        async def several():
            await asyncio.gather(*(app.aadd_client("second", **other(server)) for _ in range(5)))

        app.run(several())
        assert ask("second") == "two"
        with pytest.raises(ConfigError, match="there is a client 'second' already, openai/two"):
            app.add_client("second", **{**other(server), "model": "openai/three"})
        assert app.settings.clients["second"].model == "openai/two"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"model": "nonsense"}, "write it as 'provider/model'"),
        ({"model": "openai/m", "api_key_env": "NO_SUCH_KEY_EVER"}, "NO_SUCH_KEY_EVER"),
        ({"model": "openai/m", "api_key": "none", "budget": {"requests": 3}}, "caps are set when"),
        ({"model": f"local/smollm2-135m+{HASH}x"}, "behind '.', the 12 digits"),
    ],
)
def test_a_wrong_client_changes_nothing(settings, error):
    with server_() as server, app_of(server) as app:
        before = app.settings
        with pytest.raises(ConfigError, match=error):
            app.add_client("second", **settings)
        assert app.settings is before
        assert ask("default") == "one"


def test_a_local_model_that_is_not_here_changes_nothing_and_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path))
    with server_() as server, app_of(server) as app:
        for model in ("local/smollm2-135m", f"local/smollm2-135m+{HASH}"):
            with pytest.raises(ModelNotAvailable, match=r"otpy models pull smollm2-135m|extra 'local'"):
                app.add_client("second", model=model)
            assert list(app.settings.clients) == ["default"]


def test_a_name_with_dots_is_a_name():
    with server_() as server, app_of(server) as app:
        app.add_client("gpt-4.1+x", **other(server))
        assert ask("gpt-4.1+x") == "two"
