"""Which source wins for each setting, and which one is blamed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.config import Settings
from otpy.errors import ConfigError

VALUES = {"timeout": st.floats(0.1, 1e6), "max_tokens": st.integers(1, 10**6), "parallel": st.integers(1, 64)}
SOURCE = st.fixed_dictionaries({}, optional=VALUES)


def written(folder, **settings):
    file = folder / "otpy.toml"
    file.write_text("\n".join(["[clients.default]", *(f"{name} = {value!r}" for name, value in settings.items())]))
    return file


@given(SOURCE, SOURCE, SOURCE)
def test_the_later_source_wins_for_every_setting_by_itself(tmp_path_factory, in_file, in_environ, in_code):
    file = written(tmp_path_factory.mktemp("settings"), model="openai/x", **in_file)
    environ = {f"OTPY_CLIENTS__DEFAULT__{name.upper()}": str(value) for name, value in in_environ.items()}
    default = Settings.load(file, environ, {"clients": {"default": in_code}}).clients["default"]
    for name, value in (in_file | in_environ | in_code).items():
        assert getattr(default, name) == value


def test_a_wrong_model_is_blamed_on_the_source_that_named_it_and_not_on_the_last_one(tmp_path):
    file = written(tmp_path, model="acme/x")
    with pytest.raises(ConfigError) as raised:
        Settings.load(file, {"OTPY_CLIENTS__DEFAULT__TIMEOUT": "5"}, {"clients": {"default": {"max_tokens": 5}}})
    assert str(raised.value).startswith(f"clients.default.model='acme/x' (from {file}): unknown provider 'acme'")


@pytest.mark.parametrize(
    ("table", "known"),
    [("retry", "max_attempts, base, cap, max_wait, share, floor"), ("breaker", "fail_max, reset_timeout")],
)
def test_a_misspelled_setting_of_an_inner_table_is_refused_with_those_of_that_table(table, known):
    with pytest.raises(ConfigError, match=rf"^clients\.default\.{table}\.nope: no such setting; there are {known}$"):
        Settings.load(None, {}, {"clients": {"default": {"model": "openai/x", table: {"nope": 3}}}})
