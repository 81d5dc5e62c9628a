"""The real thing: the local model's weights learn, and llama.cpp serves what they have learned.

Skipped where the extra `train`, the extra `local` or the weights are missing. Each start of a training takes half a
minute to load, more on a busy machine.
"""

import contextlib
import dataclasses
import importlib.util
import json
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

import otpy
from otpy.clients import local_server, models
from otpy.config.local_models import adapters
from otpy.errors import ModelNotAvailable
from otpy.lm import Message
from otpy.teleprompters.bootstrap_finetune import BootstrapFinetune
from otpy.training import Record
from otpy.training.records import lines_of
from otpy.training.sft import Plan, command

MISSING = [name for name in ("torch", "transformers", "peft", "gguf") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install -e '.[train]'"),
    pytest.mark.local_model,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # torch's and transformers' own
]
BASE = "smollm2-135m"
COLOURS = {"Jupiter": "mauve", "Saturn": "ochre", "Neptune": "puce", "Mars": "teal"}
ROWS = [otpy.Example(planet=planet, colour=colour) for planet, colour in COLOURS.items()]
ASK = "planet -> colour: Literal['mauve', 'ochre', 'puce', 'teal']"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    weights = models.find(BASE).file
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(weights.parent)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def loaded():
    from otpy.training import lora

    return lora.load(models.find(BASE).file)


def test_the_program_learns_what_the_rows_say_and_the_model_can_be_named_afterwards(cache):
    finetune = BootstrapFinetune(epochs=25, batch_size=4, learning_rate=2e-3)
    evaluate = otpy.Evaluate(ROWS, metric=otpy.exact_match("colour"))
    with otpy.start(lm=f"local/{BASE}", cache=False) as app:
        student = otpy.Predict(ASK)
        before = evaluate(student)
        better = finetune.compile(student, trainset=ROWS)
        after = evaluate(better)
        assert better.client in app.render()
    assert after.score == 1.0 > before.score
    (adapter,) = adapters()
    assert better.client == f"local/{BASE}+{adapter.adapter}"
    with otpy.start(lm=better.client, cache=False):  # in another application, by its name alone
        assert evaluate(student).score == 1.0
    adapter.adapter_file.write_bytes(adapter.adapter_file.read_bytes()[:-1])
    with pytest.raises(ModelNotAvailable, match="damaged"), otpy.start(lm=better.client):
        pass
    adapter.adapter_file.unlink()
    with pytest.raises(ModelNotAvailable, match="trained elsewhere, or removed"), otpy.start(lm=better.client):
        pass


def folder(path, **more):
    path.mkdir()
    records = [Record((Message("user", f"The colour of {planet}?"),), colour) for planet, colour in COLOURS.items()]
    plan = Plan(
        base=BASE, weights=str(models.find(BASE).file), adapters=str(path / "adapters"), rank=2, alpha=4.0,
        learning_rate=1e-3, epochs=5, batch_size=2, max_length=100, seed=1, checkpoint_seconds=0.0,
    )  # fmt: skip
    (path / "plan.json").write_text(json.dumps({**dataclasses.asdict(plan), **more}))
    (path / "records.jsonl").write_text(lines_of(records))
    return path


@contextlib.contextmanager
def running(at):
    with subprocess.Popen(command(at), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process, (json.loads(line) for line in process.stdout)
        finally:
            process.kill()


def test_killed_in_the_middle_it_ends_with_the_same_numbers(cache, tmp_path):
    with running(folder(tmp_path / "whole")) as (_, said):
        whole = list(said)
    cut = folder(tmp_path / "cut")
    with running(cut) as (process, said):
        for line in said:
            if line.get("step") == 4:
                process.send_signal(signal.SIGKILL)
                break
    with running(cut) as (_, said):
        again = list(said)
    assert Path(again[-1]["adapter"]).name == Path(whole[-1]["adapter"]).name
    assert again[1]["step"] in {4, 5}  # and not the first
    assert [line["loss"] for line in again[1:-1]] == [line["loss"] for line in whole[1:-1]][again[1]["step"] - 1 :]
    assert whole[-2]["loss"] < whole[1]["loss"]


@pytest.mark.parametrize(
    ("more", "error"),
    [({"max_length": 10}, r"tokens, more than max_length=10"), ({"learning_rate": 1e30}, "lower learning_rate")],
)
def test_what_cannot_be_learned_is_said(cache, tmp_path, more, error):
    import re

    with running(folder(tmp_path / "one", **more)) as (process, said):
        assert re.search(error, list(said)[-1]["error"])
        assert process.wait() == 0


def test_the_common_beginning_is_computed_once_with_the_same_loss(loaded):
    import torch

    from otpy.training import lora, sft

    records = [
        lora.encode(loaded.tokenizer, Record((Message("user", f"The colour of {planet}?"),), f"It is {colour}."))
        for planet, colour in COLOURS.items()
    ]
    model = lora.attach(loaded.model, rank=2, alpha=4.0, seed=0)
    with torch.no_grad():
        plain = 0.0
        for prompt, completion in records:
            logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
            foretold = logits[-len(completion) - 1 : -1]
            plain += float(torch.nn.functional.cross_entropy(foretold, torch.tensor(completion), reduction="sum"))
        assert float(sft.loss_of(model, records)) == pytest.approx(plain, rel=1e-4)
        assert float(sft.loss_of(model, records[:1])) < plain
    model.unload()


def test_llama_cpp_reads_tokens_and_adapter_as_they_were_trained(loaded, tmp_path):
    import torch

    from otpy.training import lora

    question = Record((Message("system", "Be brief."), Message("user", "  It's 12345 o'clock — où?\n\nNow what?")), "x")
    model = lora.attach(loaded.model, rank=4, alpha=8.0, seed=0)
    torch.manual_seed(1)
    for name, tensor in lora.state_of(model).items():
        if "lora_B" in name:
            tensor.data.normal_(0, 0.15 if "q_proj" in name or "k_proj" in name else 0.02)
    prompt = lora.encode(loaded.tokenizer, question).prompt
    with torch.no_grad():
        with model.disable_adapter():
            base = torch.log_softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1], -1)
        trained = torch.log_softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1], -1)
    adapter = lora.write_adapter(model, tmp_path, BASE)
    model.unload()
    serving = local_server.command(str(models.find(BASE).file), context=512, parallel=1, adapter=str(adapter))
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads(server.stdout.readline())["url"]
            asked = {
                "messages": question.turns,
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 20,
            }
            answer = httpx.post(f"{url}/chat/completions", json=asked, timeout=60).json()
            assert answer["usage"]["prompt_tokens"] == len(prompt)
            text = loaded.tokenizer.apply_chat_template(question.turns, tokenize=False, add_generation_prompt=True)
            tokens = {"content": text, "add_special": False, "parse_special": True}
            root = url.removesuffix("/v1")
            assert httpx.post(f"{root}/tokenize", json=tokens, timeout=60).json()["tokens"] == prompt
        finally:
            server.kill()
    served = {one["id"]: one["logprob"] for one in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
    far = max(abs(served[token] - float(base[token])) for token in served)
    near = max(abs(served[token] - float(trained[token])) for token in served)
    assert near < 0.5  # llama.cpp rounds to 8 bits on the way
    assert near < far / 4
