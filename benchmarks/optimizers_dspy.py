"""One optimizer of DSPy, on the rows and the model that `benchmarks/optimizers.py` gives it; run by that script.

    python benchmarks/optimizers_dspy.py job.json result.json

The interpreter is one that has `dspy` and `gepa` and need not have otpy. The job says what to do; the result is one
JSON object with the scores, the wall time, and the number of rows that failed. What was asked is counted by whoever
serves the two addresses of the job.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for prices in the network
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp()

import dspy
import litellm

# Without this, litellm knows nothing of the model, and the JSON adapter of DSPy would not use the server's schemas.
litellm.register_model({
    "openai/local": {"litellm_provider": "openai", "mode": "chat", "supports_response_schema": True,
                     "supports_function_calling": False, "input_cost_per_token": 0, "output_cost_per_token": 0},
})  # fmt: skip
ADAPTERS = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter}


def metric(example: Any, prediction: Any, trace: Any = None) -> bool:  # noqa: ARG001 - DSPy's parameters
    """Whether the intent is right."""
    return example.intent == getattr(prediction, "intent", None)


def with_feedback(example: Any, prediction: Any, trace: Any = None, name: Any = None, calls: Any = None) -> Any:  # noqa: ARG001
    """The same, with words for GEPA."""
    right = metric(example, prediction)
    return dspy.Prediction(score=float(right), feedback="Right." if right else f"The right intent is {example.intent}.")


def optimized(job: dict[str, Any], student: Any, learn: list[Any], choose: list[Any], lm: Any) -> Any:
    """Return the program that the job asks for."""
    seed, threads, kind = job["seed"], job["threads"], job["optimizer"]
    demos = {"max_bootstrapped_demos": job["bootstrapped"], "max_labeled_demos": job["labeled"]}
    if job["after_bootstrap"] or kind == "BootstrapFewShot":
        student = dspy.BootstrapFewShot(metric=metric, **demos).compile(student, trainset=learn)
    if kind == "BootstrapFewShotWithRandomSearch":
        search = dspy.BootstrapFewShotWithRandomSearch(
            metric=metric, num_candidate_programs=job["candidates"], num_threads=threads, **demos
        )
        return search.compile(student, trainset=learn, valset=choose)
    if kind == "MIPROv2":
        adviser = lm.copy(max_tokens=job["advice_tokens"])
        mipro = dspy.MIPROv2(
            metric=metric, auto="light", seed=seed + 1, num_threads=threads, prompt_model=adviser, **demos
        )
        return mipro.compile(student, trainset=learn, valset=choose)
    if kind == "GEPA":
        reflects = lm.copy(temperature=1.0, max_tokens=job["advice_tokens"])
        gepa = dspy.GEPA(
            metric=with_feedback,
            max_metric_calls=job["gepa_calls"],
            reflection_lm=reflects,
            num_threads=threads,
            seed=seed,
        )
        return gepa.compile(student, trainset=learn, valset=choose)
    return student


def main() -> None:
    """Do one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=job["cache"])
    options = {
        "api_key": "none",
        "temperature": 0.0,
        "max_tokens": job["answer_tokens"],
        "cache": job["cache"],
        "engine": "litellm",
    }
    searching, scoring = (
        dspy.LM("openai/local", api_base=job[name], **options) for name in ("search_url", "score_url")
    )
    labels = Literal[tuple(job["labels"])]  # type: ignore[valid-type]
    sort = dspy.Signature(
        {"query": (str, dspy.InputField()), "intent": (labels, dspy.OutputField())}, job["instructions"]
    )
    learn, choose, dev = (
        [dspy.Example(**row).with_inputs("query") for row in job[name]] for name in ("learn", "choose", "dev")
    )
    random.Random(job["seed"]).shuffle(learn)
    dspy.configure(lm=searching, adapter=ADAPTERS[job["adapter"]]())
    result: dict[str, Any] = {"version": dspy.__version__, "adapter": job["adapter"]}
    began = time.perf_counter()
    try:
        program = optimized(job, dspy.Predict(sort), learn, choose, searching)
    except Exception as error:  # noqa: BLE001 - what it ends in is a result too
        result["error"] = f"{type(error).__name__}: {error}"[:500]
    else:
        result["seconds"] = round(time.perf_counter() - began, 1)
        result["demos"], result["instruction"] = len(program.demos), program.signature.instructions
        with dspy.context(lm=scoring):
            found = dspy.Evaluate(devset=dev, metric=metric, num_threads=job["threads"], max_errors=10**6)(program)
            result["score"] = round(found.score / 100, 4)
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
