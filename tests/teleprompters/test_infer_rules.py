"""InferRules finds the rules that help, within what it said it would cost."""

import json

import pytest
from tests.teleprompters.planted import METRIC, STUDENT, TRAIN, VAL, compiled, needs, resumed, word

import otpy
from otpy.errors import TeleprompterError
from otpy.teleprompters.infer_rules import InferRules
from otpy.teleprompters.outcome import outcome_of
from otpy.testing import Scripted


def writes_rules(body):
    return any("examples: " in message["content"] for message in body["messages"])


def examples_in(body):
    content = body["messages"][-1]["content"]
    return [line.removeprefix("examples: ").removeprefix("word: ") for line in content.splitlines() if "word: " in line]


def script(body):
    """A model that writes the rule which helps if "plum" is among the first five examples, and then follows it."""
    if writes_rules(body):
        return {"rules": ["Sort well." if "plum" in examples_in(body)[:5] else "Guess.", " "]}
    return needs(*([] if "- Sort well." in body["messages"][0]["content"] else ["no such word"]))(body)


def inferring(**arguments):
    given = {"max_bootstrapped_demos": 2, "max_labeled_demos": 2, "max_concurrency": 4, **arguments}
    return InferRules(METRIC, **given)


@pytest.mark.parametrize("seed", range(10))
def test_it_finds_the_rules_that_help_within_its_budget(seed):
    program, server = compiled(inferring(seed=seed), script)
    outcome = outcome_of(program)
    assert outcome.score == 1.0
    assert outcome.student.score == 0.0
    assert program.signature.instructions == "Sort the word.\n\nFollow these rules:\n- Sort well."
    assert len(program.demos) == 2
    assert len(server.requests) <= len(TRAIN) + 10 + 12 * len(VAL)


def test_rules_are_written_from_demos_and_examples_each_once_and_are_not_too_many():
    def many(body):
        return {"rules": [f"Rule {n}." for n in range(9)]} if writes_rules(body) else script(body)

    program, server = compiled(inferring(num_rules=3, num_candidates=1), many)
    asked = [body for body in server.requests if writes_rules(body)]
    assert [sorted(examples_in(body)) for body in asked] == [sorted(row.word for row in TRAIN)]
    (rules,) = (one.params["rules"] for one in outcome_of(program).candidates if one.name.startswith("rules"))
    assert rules == {"self": ["Rule 0.", "Rule 1.", "Rule 2."]}


def test_each_predictor_of_several_has_its_own_rules():
    class TwoSteps(otpy.Program):
        spell: otpy.Predict = otpy.Predict("word -> letters")
        sort: otpy.Predict = otpy.Predict("letters -> kind")

        async def forward(self, word):
            spelled = await self.spell.acall(word=word)
            return await self.sort.acall(letters=spelled.letters)

    def two(body):
        content = body["messages"][-1]["content"]
        if writes_rules(body):
            return {"rules": ["Use hyphens." if "word: " in content else "Sort well."]}
        if content.startswith("word: "):
            return {"letters": "-".join(word(body))}
        helped = "- Sort well." in body["messages"][0]["content"]
        asked = content.removeprefix("letters: ").replace("-", "")
        right = {"pear": "fruit", "saw": "tool"}
        knows = {row.word: row.kind for row in (TRAIN + VAL if helped else TRAIN)}
        return {"kind": {**right, **knows}.get(asked, "neither")}

    program, _ = compiled(inferring(num_candidates=1), two, student=TwoSteps())
    assert outcome_of(program).score == 1.0
    assert program.spell.signature.instructions.endswith("- Use hyphens.")
    assert program.sort.signature.instructions.endswith("- Sort well.")


def test_examples_that_are_too_long_for_the_model_are_halved():
    too_long = json.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}}).encode()

    def short(body):
        long = writes_rules(body) and len(examples_in(body)) > 5
        return Scripted("", status=400, body=too_long) if long else script(body)

    program, server = compiled(inferring(), short)
    counts = [len(examples_in(body)) for body in server.requests if writes_rules(body)]
    assert set(counts) == {14, 7, 3}
    assert outcome_of(program).score == 1.0


def test_answers_that_are_no_rules_cost_their_candidate_and_if_all_are_it_is_said():
    def none(body):
        return "I do not know." if writes_rules(body) else script(body)

    with pytest.raises(TeleprompterError, match="no rules were written in 10 askings"):
        compiled(inferring(), none)


@pytest.mark.parametrize("width", [1, 20])
def test_the_result_does_not_depend_on_how_many_are_under_way(width):
    one, _ = compiled(inferring(seed=3, max_concurrency=width), script)
    other, _ = compiled(inferring(seed=3), script)
    assert one.content_hash() == other.content_hash()


@pytest.mark.parametrize("after", [1, 2, 6])
def test_a_run_that_was_cut_goes_on_to_the_identical_program(tmp_path, after):
    whole, again, sent = resumed(lambda: inferring(seed=1), script, tmp_path / "run", after)
    assert again.content_hash() == whole.content_hash()
    assert set(sent.values()) == {1}


def test_nothing_is_better_than_the_student_so_it_is_returned():
    def useless(body):
        return {"rules": ["Guess."]} if writes_rules(body) else {"kind": "fruit"}

    assert compiled(inferring(), useless)[0] == STUDENT


def test_another_client_may_write_the_rules():
    with pytest.raises(otpy.errors.OtpyError, match="writer"):
        compiled(inferring(prompt_client="writer"), script)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_candidates": 0}, "num_candidates=0; allowed: an integer >= 1"),
        ({"num_rules": 0}, "num_rules=0; allowed: an integer >= 1"),
        ({"prompt_client": ""}, "prompt_client=''; allowed: the name of a client, or None"),
        ({"max_errors": -1}, "max_errors=-1"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(arguments, message):
    with pytest.raises(TeleprompterError, match=message):
        inferring(**arguments)
