"""Settings: three sources and their order, what is refused and in which words, and that secrets stay secret."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from otpy.config import ClientSettings, Settings
from otpy.errors import ConfigError

SECRET = "sk-very-secret-0123456789"


def load(overrides=None, environ=None, file=None):
    return Settings.load(file, environ or {}, overrides or {})


def client(**settings):
    return load({"clients": {"default": {"model": "openai/gpt-x"} | settings}}).clients["default"]


def problems(overrides=None, environ=None, file=None):
    with pytest.raises(ConfigError) as caught:
        load(overrides, environ, file)
    return str(caught.value).splitlines()


def problem(**settings):
    (line,) = problems({"clients": {"default": {"model": "openai/gpt-x"} | settings}})
    return line


class TestSources:
    def test_nothing_at_all_is_an_application_without_clients(self):
        assert load().clients == {}

    def test_later_sources_win_and_earlier_ones_fill_in(self, tmp_path):
        file = tmp_path / "otpy.toml"
        file.write_text('[clients.default]\nmodel = "openai/file"\ntemperature = 0.1\nmax_tokens = 1\n')
        environ = {"OTPY_CLIENTS__DEFAULT__TEMPERATURE": "0.2", "OTPY_CLIENTS__DEFAULT__MAX_TOKENS": "2"}
        settings = load({"clients": {"default": {"max_tokens": 3}}}, environ, file).clients["default"]
        assert (settings.model, settings.temperature, settings.max_tokens) == ("openai/file", 0.2, 3)

    def test_a_client_can_come_from_the_environment_alone(self):
        environ = {
            "OTPY_CLIENTS__JUDGE__MODEL": "openai/gpt-x",
            "OTPY_CLIENTS__JUDGE__RETRY__MAX_ATTEMPTS": "2",
            "OTPY_CACHE__ENABLED": "false",
            "PATH": "/bin",
        }
        settings = load(environ=environ)
        assert settings.clients["judge"].retry.max_attempts == 2
        assert settings.cache.enabled is False

    def test_variables_that_are_no_settings_are_left_alone(self):
        assert load(environ={"OTPY_CACHE_DIR": "/tmp/x", "OTPY_DEBUG": "1"}) == load()

    def test_loading_changes_none_of_its_sources(self, tmp_path):
        overrides = {"clients": {"default": {"model": "openai/gpt-x"}}}
        environ = {"OTPY_CLIENTS__DEFAULT__TEMPERATURE": "0.5"}
        load(overrides, environ)
        assert overrides == {"clients": {"default": {"model": "openai/gpt-x"}}}
        assert environ == {"OTPY_CLIENTS__DEFAULT__TEMPERATURE": "0.5"}

    def test_a_whole_client_may_be_given_and_its_parts_overridden(self):
        whole = ClientSettings(model="openai/gpt-x", temperature=0.1, api_key=SecretStr(SECRET))
        settings = load({"clients": {"default": whole}})
        assert settings.clients["default"] == whole
        warmer = settings.changed(**{"clients.default.temperature": 0.9}).clients["default"]
        assert (warmer.temperature, warmer.api_key) == (0.9, SecretStr(SECRET))


class TestProblems:
    def test_a_problem_names_setting_value_source_and_what_is_allowed(self, tmp_path):
        file = tmp_path / "otpy.toml"
        file.write_text('[clients.default]\nmodel = "openai/gpt-x"\nmax_concurrency = 0\n')
        (line,) = problems(file=file)
        assert line.startswith(f"clients.default.max_concurrency=0 (from {file}): ")
        assert "greater than or equal to 1" in line

    def test_there_is_one_line_for_each_problem(self):
        lines = problems(
            {"clients": {"default": {"model": "openai/gpt-x", "temperature": -1}}},
            {"OTPY_CACHE__ENABLED": "perhaps", "OTPY_CLIENTS__OTHER__MODEL": "gpt"},
        )
        assert sorted(line.split("=")[0] for line in lines) == [
            "cache.enabled",
            "clients.default.temperature",
            "clients.other.model",
        ]
        assert any("(from environment variable OTPY_CACHE__ENABLED)" in line for line in lines)

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("max_concurrency", 0),
            ("requests_per_minute", 0),
            ("max_tokens", 0),
            ("temperature", -0.1),
            ("temperature", float("nan")),
            ("timeout", 0),
            ("timeout", float("inf")),
            ("parallel", 0),
            ("profile", "antropic"),
            ("min_concurrency", 0),
        ],
    )
    def test_values_that_cannot_work_are_refused(self, setting, value):
        assert problem(**{setting: value}).startswith(f"clients.default.{setting}={value!r}: ")

    @pytest.mark.parametrize("model", ["gpt-x", "/gpt-x", "openai/", "", "/"])
    def test_a_model_is_written_with_its_provider(self, model):
        assert problem(model=model) == (
            f"clients.default.model={model!r}: write it as 'provider/model', as in 'local/smollm2-135m'"
        )

    def test_an_unknown_provider_is_refused_with_those_that_are_known(self):
        line = problem(model="acme/m1")
        assert line.startswith("clients.default.model='acme/m1': unknown provider 'acme'; known: openai, ")
        assert line.endswith("needs base_url")

    def test_an_unknown_local_model_is_refused_with_those_that_are_known(self):
        line = problem(model="local/nope")
        assert line == "clients.default.model='local/nope': unknown local model; known: smollm2-135m, all-minilm-l6-v2"

    def test_a_local_model_has_no_address(self):
        assert "leave it out" in problem(model="local/smollm2-135m", base_url="http://127.0.0.1:1/v1")

    @pytest.mark.parametrize(
        "base_url", ["ftp://host/", "host/v1", "http://", "http://:::/", "https://h/v1?key=x", "https://a b/", ""]
    )
    def test_an_address_that_is_none_is_refused(self, base_url):
        assert problem(base_url=base_url).startswith(f"clients.default.base_url={base_url!r}: write it as http(s)://")

    def test_a_misspelled_setting_is_refused_with_those_there_are(self):
        assert problem(temprature=1).startswith("clients.default.temprature: no such setting; there are model, ")
        assert problem(retry={"max_attemps": 3}) == (
            "clients.default.retry.max_attemps: no such setting; "
            "there are max_attempts, base, cap, max_wait, share, floor"
        )
        assert problems({"cache": {"dir": "x"}})[0].startswith("cache.dir: no such setting; there are enabled, ")
        assert problems({"logs": 1}) == [
            "logs: no such setting; there are clients, routes, cache, budget, history, recording"
        ]

    def test_a_variable_that_names_no_setting_is_refused(self):
        (line,) = problems(environ={"OTPY_CLIENST__DEFAULT__MODEL": "openai/x"})
        assert "OTPY_CLIENST__DEFAULT__MODEL" in line
        assert "no such setting" in line

    def test_a_client_without_a_model_is_refused(self):
        assert problems({"clients": {"default": {"temperature": 1}}}) == ["clients.default.model: is missing"]

    def test_a_value_where_a_table_belongs_is_refused(self):
        (line,) = problems({"clients": {"default": "openai/gpt-x"}})
        assert line.startswith("clients.default='openai/gpt-x': is a table of settings: model, ")

    @pytest.mark.parametrize("order", [1, -1])
    def test_no_source_is_overridden_in_silence_by_one_of_another_shape(self, order):
        environ = dict([("OTPY_CACHE", "1"), ("OTPY_CACHE__ENABLED", "no")][::order])
        (line,) = problems(environ=environ)
        assert line.startswith("cache='1' (from environment variable OTPY_CACHE")
        assert "is a table of settings" in line

    def test_a_key_is_not_shown_where_its_shape_is_wrong(self):
        environ = {"OTPY_CLIENTS__A__API_KEY": SECRET, "OTPY_CLIENTS__A__API_KEY__VALUE": "x"}
        (line,) = problems(environ=environ)
        assert line.startswith("clients.a.api_key (from environment variable OTPY_CLIENTS__A__API_KEY): ")
        assert SECRET not in line

    @pytest.mark.parametrize("text", [b"clients = [", b"\xff\xfe"])
    def test_a_file_that_is_no_toml_is_named(self, tmp_path, text):
        file = tmp_path / "otpy.toml"
        file.write_bytes(text)
        (line,) = problems(file=file)
        assert line.startswith(f"{file}: cannot be read: ")

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        assert "nowhere.toml: cannot be read" in problems(file=tmp_path / "nowhere.toml")[0]


class TestChanges:
    def test_a_change_is_a_new_value(self):
        before = load({"clients": {"default": {"model": "openai/gpt-x", "temperature": 0.1}}})
        after = before.changed(**{"clients.default.temperature": 0.9, "cache.enabled": False})
        assert (before.clients["default"].temperature, before.cache.enabled) == (0.1, True)
        assert (after.clients["default"].temperature, after.cache.enabled) == (0.9, False)
        assert after.clients["default"].model == "openai/gpt-x"

    def test_an_invalid_change_names_what_is_wrong(self):
        before = load({"clients": {"default": {"model": "openai/gpt-x"}}})
        with pytest.raises(ConfigError, match=r"^clients\.default\.max_concurrency=0: "):
            before.changed(**{"clients.default.max_concurrency": 0})
        with pytest.raises(ConfigError, match=r"^clients\.default\.tempo: no such setting"):
            before.changed(**{"clients.default.tempo": 0})

    def test_a_setting_can_be_taken_back(self):
        before = load({"clients": {"default": {"model": "openai/gpt-x", "max_tokens": 5}}})
        assert before.changed(**{"clients.default.max_tokens": None}).clients["default"].max_tokens is None

    def test_one_price_without_the_other_is_refused(self):
        assert problem(input_price=1).startswith("clients.default.output_price: is missing; one price without")
        assert problem(output_price=1).startswith("clients.default.input_price: is missing; one price without")

    def test_bounds_that_contradict_each_other_are_refused(self):
        assert problem(min_concurrency=5, max_concurrency=2) == (
            "clients.default.min_concurrency=5: at most max_concurrency=2"
        )

    def test_settings_are_frozen(self):
        with pytest.raises(ValidationError):
            load().cache = None
        with pytest.raises(ValidationError):
            client().temperature = 1

    @given(st.floats(0, 2), st.none() | st.integers(1, 10_000), st.booleans())
    def test_changing_to_what_is_already_so_changes_nothing(self, temperature, max_tokens, enabled):
        values = {
            "clients.default.temperature": temperature,
            "clients.default.max_tokens": max_tokens,
            "cache.enabled": enabled,
        }
        once = load({"clients": {"default": {"model": "openai/gpt-x"}}}).changed(**values)
        assert once.changed(**values) == once


class TestDefaults:
    @pytest.mark.parametrize(
        ("settings", "url", "profile"),
        [
            ({"model": "openai/gpt-x"}, "https://api.openai.com/v1", "openai"),
            ({"model": "openai/gpt-x", "base_url": "http://proxy:8000/v1/"}, "http://proxy:8000/v1", "openai"),
            ({"model": "acme/m1", "base_url": "https://acme.example/v1"}, "https://acme.example/v1", "generic"),
            ({"model": "acme/m1", "base_url": "https://a.b", "profile": "llama_cpp"}, "https://a.b", "llama_cpp"),
            ({"model": "local/smollm2-135m"}, None, "llama_cpp"),
            ({"model": "llama_cpp/any"}, "http://127.0.0.1:8080/v1", "llama_cpp"),
        ],
    )  # fmt: skip
    def test_a_known_provider_brings_its_address_and_its_habits(self, settings, url, profile):
        found = client(**settings)
        assert (found.url, found.effective_profile) == (url, profile)

    def test_a_models_name_may_have_slashes(self):
        found = client(model="openrouter/meta/llama-4")
        assert (found.provider, found.model_name) == ("openrouter", "meta/llama-4")

    @pytest.mark.parametrize(
        "other", [{"model": "openai/other"}, {"temperature": 0.5}, {"max_tokens": 7}, {"base_url": "http://other/v1"}]
    )
    def test_whatever_decides_an_answer_is_part_of_the_cache_key(self, other):
        assert client().cache_context != client(**other).cache_context

    @pytest.mark.parametrize("other", [{"timeout": 3}, {"max_concurrency": 9}, {"api_key": "sk-1"}, {"cache": False}])
    def test_whatever_decides_no_answer_is_not(self, other):
        assert client().cache_context == client(**other).cache_context

    def test_the_cache_is_on_disk_unless_told_otherwise(self, tmp_path, monkeypatch):
        monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path))
        assert load().cache.resolved_path() == tmp_path / "answers.sqlite"
        assert load({"cache": {"path": str(tmp_path / "mine")}}).cache.resolved_path() == tmp_path / "mine"
        assert load({"cache": {"disk": False}}).cache.resolved_path() is None


class TestKeys:
    def test_the_key_of_the_settings_comes_before_that_of_the_environment(self):
        environ = {"OPENAI_API_KEY": "sk-environment"}
        assert client().resolved_api_key(environ) == SecretStr("sk-environment")
        assert client(api_key="sk-settings").resolved_api_key(environ) == SecretStr("sk-settings")
        assert client(api_key_env="MINE").resolved_api_key({"MINE": "sk-mine"} | environ) == SecretStr("sk-mine")

    @pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1", "https://api.openai.com/v1/"])
    @pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": ""}])
    def test_a_missing_key_names_the_variable(self, base_url, environ):
        with pytest.raises(ConfigError, match="openai/gpt-x: set the environment variable OPENAI_API_KEY"):
            client(base_url=base_url).resolved_api_key(environ)

    def test_a_providers_key_is_not_sent_to_another_address(self):
        there = client(base_url="http://elsewhere.example/v1")
        assert there.resolved_api_key({"OPENAI_API_KEY": SECRET}) is None

    @pytest.mark.parametrize("model", ["local/smollm2-135m", "ollama/any", "vllm/any"])
    def test_a_server_of_ones_own_needs_no_key(self, model):
        assert client(model=model).resolved_api_key({}) is None

    def test_a_newline_after_the_key_is_not_part_of_it(self):
        assert client(api_key="sk-a\n").resolved_api_key({}) == SecretStr("sk-a")
        assert client().resolved_api_key({"OPENAI_API_KEY": " sk-b\r\n"}) == SecretStr("sk-b")

    @pytest.mark.parametrize("key", [SECRET + "\nx", SECRET + "…", SECRET + "\x00", "\t"])
    def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(self, key):
        line = problem(api_key=key)
        assert line.startswith("clients.default.api_key: ")
        with pytest.raises(ConfigError, match="OPENAI_API_KEY: it ") as caught:
            client().resolved_api_key({"OPENAI_API_KEY": key})
        assert SECRET not in line + str(caught.value)


class TestSecrets:
    def settings(self):
        return load({"clients": {"default": {"model": "openai/gpt-x", "api_key": SECRET}}})

    def test_a_secret_is_in_no_text_of_the_settings(self):
        settings = self.settings()
        for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
            assert SECRET not in shown
        assert json.loads(settings.model_dump_json())["clients"]["default"]["api_key"] == "*" * 10

    @pytest.mark.parametrize(
        "broken",
        [
            {"clients": {"default": {"model": "openai/gpt-x", "api_key": [SECRET]}}},
            {"clients": {"default": {"model": "openai/gpt-x", "api_key": {"value": SECRET}}}},
            {"clients": {"default": {"model": "openai/gpt-x", "apikey": SECRET}}},
            {"clients": {"default": {"model": "gpt", "api_key": SECRET}}},
            {"clients": {"default": {"model": "openai/gpt-x", "base_url": f"https://me:{SECRET}@host/v1"}}},
            {"clients": [{"api_key": SECRET}]},
        ],
    )
    def test_a_secret_is_in_no_error(self, broken):
        with pytest.raises(ConfigError) as caught:
            load(broken)
        seen = caught.value
        assert SECRET not in f"{seen} {seen!r} {seen.__cause__!r}"
        assert seen.__suppress_context__ or seen.__context__ is None

    def test_a_secret_survives_a_change_unseen(self):
        changed = self.settings().changed(**{"clients.default.temperature": 1})
        assert changed.clients["default"].resolved_api_key({}) == SecretStr(SECRET)
        with pytest.raises(ConfigError) as caught:
            self.settings().changed(**{"clients.default.temperature": -1})
        assert SECRET not in str(caught.value)

    def test_the_error_crosses_processes(self):
        with pytest.raises(ConfigError) as caught:
            load({"logs": 1})
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
