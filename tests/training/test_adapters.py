"""What a model has learned here is a file beside its weights: listed, checked, served and removed by its name."""

import hashlib
import json

import pytest

from otpy.cli.main import main
from otpy.clients import models
from otpy.config import Settings
from otpy.config.local_models import LOCAL_MODELS, adapters, local_model
from otpy.errors import ConfigError, ModelNotAvailable

BASE = "smollm2-135m"
CONTENT = b"what was learned"
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:12]
NAME = f"{BASE}+{DIGITS}"


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path))
    file = tmp_path / "adapters" / f"{BASE}-{DIGITS}.gguf"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    (file.parent / "notes.gguf").touch()
    (file.parent / f".{BASE}-7.part").touch()
    return file


@pytest.fixture
def weights(adapter, monkeypatch):
    monkeypatch.setattr(models, "runtime_installed", lambda: True)
    file = LOCAL_MODELS[BASE].file
    file.parent.mkdir()
    with file.open("wb") as stream:
        stream.truncate(LOCAL_MODELS[BASE].size)
    return file


def test_an_adapter_belongs_to_the_model_whose_weights_it_stands_beside(adapter):
    (model,) = adapters()
    assert (model.name, model.adapter, model.adapter_file) == (BASE, DIGITS, adapter)
    assert model.file == LOCAL_MODELS[BASE].file
    assert LOCAL_MODELS[BASE].adapter_file is None


NONE = ["nope", f"nope+{DIGITS}", f"{BASE}+", f"{BASE}+{DIGITS}0", f"{BASE}+{'g' * 12}", f"{BASE}+../../../../e"]


@pytest.mark.parametrize("name", [*NONE, f"all-minilm-l6-v2+{DIGITS}"])
def test_a_name_that_is_none_is_refused(name):
    assert local_model(name) is None
    with pytest.raises(ModelNotAvailable, match="unknown local model"):
        models.find(name)
    with pytest.raises(ConfigError, match="unknown local model"):
        Settings.load(None, {}, {"clients": {"default": {"model": f"local/{name}"}}})


def test_a_model_that_has_learned_is_served_from_both_files(adapter, weights):
    command = models.server_command(NAME, parallel=2)
    assert command[command.index("--model") + 1] == str(weights)
    assert command[command.index("--adapter") + 1] == str(adapter)
    assert "--adapter" not in models.server_command(BASE, parallel=2)
    assert models.installed(f"local/{NAME}")


def test_what_is_not_here_is_not_served_and_the_error_says_what_is(adapter, weights):
    other = f"{BASE}+{'0' * 12}"
    assert not models.installed(other)
    why = rf"trained elsewhere, or removed: .* is not here.*here: local/{BASE}.{DIGITS}"
    with pytest.raises(ModelNotAvailable, match=why):
        models.server_command(other, parallel=1)


def test_what_is_damaged_is_not_served(adapter, weights):
    adapter.write_bytes(b"something else")
    with pytest.raises(ModelNotAvailable, match="is damaged: its hash is"):
        models.server_command(NAME, parallel=1)


def test_without_the_weights_an_adapter_is_of_no_use(adapter, monkeypatch):
    monkeypatch.setattr(models, "runtime_installed", lambda: True)
    assert not models.installed(NAME)
    with pytest.raises(ModelNotAvailable, match=f"not here yet: otpy models pull {BASE}$"):
        models.server_command(NAME, parallel=1)


def test_what_was_trained_cannot_be_fetched(adapter):
    with pytest.raises(ModelNotAvailable, match="was trained, and can be fetched nowhere"):
        models.pull(NAME)


def test_the_command_line_lists_names_and_removes_it(adapter, weights, capsys):
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows[NAME]["path"] == str(adapter)
    assert main(["models", "path", NAME]) == 0
    assert capsys.readouterr().out.strip() == str(adapter)
    assert main(["models", "remove", NAME]) == 0
    assert not adapter.exists()
    assert weights.exists()
    assert main(["models", "path", NAME]) != 0
    assert "train it again" in capsys.readouterr().err
