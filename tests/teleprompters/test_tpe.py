"""The estimator goes where Optuna's goes, always the same, and finds what is best more often than chance."""

from __future__ import annotations

import builtins
import random

import pytest
from hypothesis import given
from hypothesis import settings as fewer
from hypothesis import strategies as st

from otpy.errors import TeleprompterError
from otpy.teleprompters.tpe import Tpe

optuna = pytest.importorskip("optuna")


def value(choice, best):
    return sum(choice[name] == at for name, at in best.items()) / len(best)


def test_it_proposes_what_a_study_of_optuna_with_the_same_seed_does():
    spaces = {name: optuna.distributions.CategoricalDistribution(list(range(6))) for name in "ab"}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=3, multivariate=True, constant_liar=True)
    reference = optuna.create_study(direction="maximize", sampler=sampler)
    ours = Tpe({"a": 6, "b": 6}, seed=3)
    for _ in range(25):
        trial = reference.ask(spaces)
        number, choice = ours.ask()
        assert choice == trial.params
        reference.tell(trial, value(choice, {"a": 4, "b": 1}))
        ours.tell(number, value(choice, {"a": 4, "b": 1}))


@fewer(max_examples=15)
@given(st.integers(0, 10_000), st.dictionaries(st.sampled_from("abcd"), st.integers(1, 7), min_size=1))
def test_choices_are_in_range_and_depend_on_the_seed_alone(seed, choices):
    studies = [Tpe(choices, seed=seed, startup=3) for _ in range(2)]
    for step in range(6):
        (number, one), (_, other) = (study.ask() for study in studies)
        assert one == other
        assert all(0 <= at < choices[name] for name, at in one.items())
        if step % 2:
            for study in studies:
                study.tell(number, random.Random(step).random())
    for study in studies:
        study.learn(dict.fromkeys(choices, 0), 1.0)


def test_it_finds_the_best_of_36_in_25_trials_more_often_than_chance_does():
    found = 0
    for seed in range(10):
        study, best = Tpe({"a": 6, "b": 6}, seed=seed), {"a": seed % 6, "b": (seed + 2) % 6}
        for _ in range(25):
            number, choice = study.ask()
            study.tell(number, value(choice, best))
            found += choice == best
    assert found > 10 * 25 / 36 * 3


def test_without_optuna_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *others, **more):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TeleprompterError, match=r"needs Optuna: pip install 'otpy-framework\[optuna\]'"):
        Tpe({"a": 2}, seed=0)
