"""What every optimizer says it will take is what it takes."""

import pytest

import otpy
from otpy.teleprompters.better_together import BetterTogether
from otpy.teleprompters.copro import COPRO
from otpy.teleprompters.gepa import GEPA
from otpy.teleprompters.mipro import MIPROv2
from otpy.teleprompters.random_search import BootstrapFewShotWithRandomSearch
from tests.teleprompters.planted import METRIC, STUDENT, TRAIN
from tests.teleprompters.tasks import TASKS, run


@pytest.mark.parametrize("name", TASKS)
def test_the_requests_of_a_run_lie_in_the_stated_range(name):
    task = TASKS[name]
    score, outcome, estimate = run(task, seed=3)
    low, high = estimate.requests
    assert low <= outcome.requests <= high, str(estimate)
    assert score == task.best


def test_proposals_that_are_no_news_take_the_least():
    assert COPRO(METRIC, breadth=3, depth=2).requests(10, 5, 2) == (10 + 30, 10 + 30 + 200 + 20)


def test_a_larger_valset_than_is_used_counts_as_far_as_it_is_used():
    rows = [otpy.Example(word=f"w{n}", kind="tool") for n in range(400)]
    light = MIPROv2(METRIC, auto="light")
    few, many = (light.estimate(STUDENT, trainset=TRAIN, valset=rows[:count]).requests for count in (100, 400))
    assert few == many
    assert few[0] >= 100


def test_a_budget_of_measured_rows_is_the_most_besides_reflection():
    assert GEPA(METRIC, max_metric_calls=100).requests(20, 10, 1) == (10, 100 + 30)
    assert GEPA(METRIC, max_metric_calls=100, component_selector="all").requests(20, 10, 2) == (20, 200 + 60)


def test_a_search_that_may_end_at_once_takes_no_more_than_the_student_at_least():
    search = BootstrapFewShotWithRandomSearch(METRIC, stop_at_score=1.0, max_labeled_demos=0)
    assert search.requests(14, 6, 1) == (6, 14 + 20 * 6)


def test_a_chain_takes_what_its_steps_take():
    search = BootstrapFewShotWithRandomSearch(METRIC)
    chain = BetterTogether(METRIC, strategy="l -> s", l=otpy.LabeledFewShot(4), s=search)
    low, high = search.requests(14, 6, 1)
    assert chain.requests(14, 6, 1) == (low, high + 3 * 6)
