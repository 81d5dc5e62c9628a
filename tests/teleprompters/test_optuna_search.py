"""BootstrapFewShotWithOptuna finds the demo that helps, as an optuna study of the same seed would."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.teleprompters.planted import METRIC, STUDENT, TRAIN, VAL, bodies, compiled, needs, resumed

from otpy.errors import TeleprompterError
from otpy.teleprompters import optuna_search
from otpy.teleprompters.optuna_search import BootstrapFewShotWithOptuna, Suggestions
from otpy.teleprompters.outcome import outcome_of

optuna = pytest.importorskip("optuna")
SCRIPT = needs("plum")


def searching(**arguments):
    arguments = {"max_bootstrapped_demos": 14, "max_labeled_demos": 0, "k": 2, "max_concurrency": 4, **arguments}
    return BootstrapFewShotWithOptuna(METRIC, num_candidate_programs=32, **arguments)


@pytest.mark.parametrize("seed", range(10))
def test_it_finds_the_demo_that_helps_within_its_budget(seed):
    program, server = compiled(searching(seed=seed), SCRIPT)
    outcome = outcome_of(program)
    assert outcome.score == 1.0
    assert outcome.student.score == 0.0
    assert "plum" in {demo.word for demo in program.demos}
    assert len(server.requests) <= 33 * len(VAL) + len(TRAIN)
    assert max(bodies(server).values()) == 1  # a choice that was measured is not run again


def test_the_choices_are_those_of_an_optuna_study_with_the_same_seed():
    program, _ = compiled(searching(seed=7), SCRIPT)
    trials = [one for one in outcome_of(program).candidates if one.name.startswith("trial")]
    scores = iter(one.score for one in trials)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=7, multivariate=False))

    def objective(trial):
        for slot in range(2):
            trial.suggest_int(f"self/{slot}", 0, len(TRAIN) - 1)
        return next(scores)

    study.optimize(objective, n_trials=32)
    assert [dict(one.params) for one in trials] == [trial.params for trial in study.trials]


@pytest.mark.parametrize("width", [1, 16, 40])
def test_the_result_does_not_depend_on_how_many_are_under_way(width):
    one, _ = compiled(searching(seed=3, max_concurrency=width), SCRIPT)
    other, _ = compiled(searching(seed=3), SCRIPT)
    assert one.content_hash() == other.content_hash()


@pytest.mark.parametrize("after", [1, 5, 20])
def test_a_run_that_was_cut_goes_on_to_the_identical_program(tmp_path, after):
    whole, again, sent = resumed(lambda: searching(seed=1), SCRIPT, tmp_path / "run", after)
    assert again.content_hash() == whole.content_hash()
    assert set(sent.values()) == {1}


def test_nothing_is_better_than_the_student_so_it_is_returned():
    program, _ = compiled(searching(), lambda body: {"kind": "fruit"})
    assert program == STUDENT


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 5), max_size=3), st.integers(0, 1000), st.booleans())
@settings(max_examples=8)
def test_choices_are_in_range_and_depend_on_the_seed_and_the_scores_alone(slots, seed, together):
    def choices():
        suggestions = Suggestions(slots, seed)
        found = [suggestions.ask() for _ in range(10)] if together else []
        for at in range(12):
            if at >= len(found):
                found.append(suggestions.ask())
            suggestions.tell(float(sum(found[at].values())))
        return found

    first = choices()
    assert first == choices()
    assert all(0 <= choice[name] < count for choice in first for name, count in slots.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0; allowed: an integer >= 1"),
        ({"max_bootstrapped_demos": 0}, "max_bootstrapped_demos=0; allowed: an integer >= 1"),
        ({"seed": -1}, "seed=-1; allowed: an integer >= 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(arguments, message):
    with pytest.raises(TeleprompterError, match=message):
        searching(**arguments)


def test_without_optuna_it_says_how_to_get_it(monkeypatch):
    def missing(_):
        raise ImportError

    monkeypatch.setattr(optuna_search, "import_module", missing)
    with pytest.raises(TeleprompterError, match=r"pip install 'otpy\[optuna\]'"):
        compiled(searching(), SCRIPT)
