"""What the command line's words mean: which program, which metric, which rows, which file to write."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from otpy.errors import ConfigError, OtpyError
from otpy.evaluate import check_labels, exact_match, f1, load_dataset
from otpy.programs import ChainOfThought, Embedder, Predict, Program, files, load, load_file
from otpy.programs.saving import NeedsCode
from otpy.signatures import SignatureMeta

if TYPE_CHECKING:
    from otpy.application import Application
    from otpy.evaluate import Metric
    from otpy.signatures import Example

__all__ = ["checked", "found_metric", "found_program", "found_rows", "refused", "signature_of", "writable"]

METRICS = {"exact_match": exact_match, "f1": f1}
_PATH = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_][\w.]*)")


def found_program(text: str, state: str | None = None, *, option: str = "--program") -> Program:
    """Return the program that `--program` names, with what `--load` adds to it.

    Args:
        text: `module:attribute` (a program or a signature; the current directory counts), a saved `program.json`, or
            a signature such as `"question -> answer"`.
        state: A saved program of the same structure, whose demos and instructions it takes over.
        option: What the option is called, for messages.

    Raises:
        typer.BadParameter: If it is none of these, or the module or attribute does not exist.
        SignatureError: If the signature is no signature.
        ProgramError: If the saved program can't be loaded.
    """
    program = _named_program(text, option)
    return program if state is None else load(_shaped(program, state), state)


def _shaped(program: Program, state: str) -> Program:
    """Return the program that a state is to fill: one that `knn` made shows another one demos."""
    from otpy.teleprompters.knn_few_shot import NearestDemos

    if isinstance(program, NearestDemos) or files.parsed(state).get("program") != NearestDemos.__name__:
        return program
    return NearestDemos(program=program, k=1, shots=(), embedder=Embedder())


def _named_program(text: str, option: str) -> Program:
    if "->" in text:
        return Predict(text)
    if text.endswith(".json") or Path(text).is_file():
        if not Path(text).is_file():
            raise refused(option, f"no such file: {text}")
        if files.parsed(text).get("program") == "NearestDemos":
            raise refused(option, f"{text} shows the demos of another program; name that, and --load {text}")
        return _loaded(option, text)
    if not (match := _PATH.fullmatch(text)):
        raise refused(
            option,
            f'{text!r} is no module:attribute, no saved program.json and no signature like "question -> answer"',
        )
    found = _imported(option, **match.groupdict())
    if isinstance(found, Program):
        return found
    if isinstance(found, SignatureMeta):
        return Predict(found)  # type: ignore[arg-type]
    if inspect.isclass(found) and issubclass(found, Program):
        raise refused(option, f"{text} is the class {found.__name__}; name a program made from it")
    raise refused(option, f"{text} is {_kind(found)}; name a program or a signature")


def _loaded(option: str, path: str) -> Program:
    try:
        return load_file(path)
    except NeedsCode as error:
        then = (
            f"name the program that it was made from, and --load {path}"
            if option == "--program"
            else "name a program of a module, as module:attribute"
        )
        raise refused(option, f"{path}: {error.what}, which no file holds; {then}") from error


def signature_of(program: Program) -> SignatureMeta | None:
    """Return the signature of a `Predict` or `ChainOfThought`; `None` for a composition."""
    if not isinstance(program, (Predict, ChainOfThought)):
        return None
    return program.named_predictors()[0][1].signature


def found_metric(text: str, program: Program) -> tuple[Metric, tuple[str, ...]]:
    """Return the metric that `--metric` names, and the columns it reads.

    Args:
        text: `exact_match:FIELD`, `f1:FIELD`, or `module:function`.
        program: What will be measured; its outputs are the fields there are.

    Raises:
        typer.BadParameter: If there is no such metric or field.
    """
    name, _, field = text.partition(":")
    if name in METRICS:
        signature = signature_of(program)
        outputs = tuple(signature.output_fields) if signature is not None else ()
        if not field:
            example = outputs[0] if outputs else "FIELD"
            raise refused("--metric", f"{text!r} needs a field: {name}:{example}")
        if outputs and field not in outputs:
            raise refused("--metric", f"the program has no output {field!r}; it has: {', '.join(outputs)}")
        return METRICS[name](field), (field,)
    if not (match := _PATH.fullmatch(text)):
        known = ", ".join(f"{known}:FIELD" for known in METRICS)
        raise refused("--metric", f"unknown metric {text!r}; known: {known}, or your own as module:function")
    found = _imported("--metric", **match.groupdict())
    if not callable(found):
        raise refused("--metric", f"{text} is {_kind(found)}; name a function (example, prediction, trace=None)")
    return found, ()


def found_rows(
    path: str, program: Program, columns: tuple[str, ...], inputs: str | None, limit: int | None
) -> list[Example]:
    """Return the rows of a data file, checked against the program.

    Args:
        path: A data file, as for `load_dataset`.
        program: Its signature says which columns are inputs and which labels exist.
        columns: Further columns every row must have.
        inputs: The input columns, separated by commas, of a program without a signature of its own.
        limit: Take this many rows from the top; `None` takes all.

    Raises:
        DatasetError: If the file, a row or a column is not as it must be.
        typer.BadParameter: If it can't be known which columns are inputs.
    """
    signature = signature_of(program)
    if inputs is not None:
        names = tuple(name.strip() for name in inputs.split(",") if name.strip())
    elif program.input_names is not None:
        names = program.input_names
    else:
        kind = type(program).__name__
        raise refused("--inputs", f"a {kind} does not say which columns are its inputs: --inputs column,column")
    examples = load_dataset(path, inputs=names, required=(*names, *columns), limit=limit)
    if signature is not None:
        check_labels(examples, signature, path)
    return examples


def checked(application: Application) -> Application:
    """Refuse an application that could ask nobody, before anything is started.

    Raises:
        ConfigError: If no model is named, or a provider's key is missing; the message names its variable.
    """
    clients = application.settings.clients
    if "default" not in clients:
        raise ConfigError(
            "no model: give --lm provider/model, such as --lm local/smollm2-135m, or name one in otpy.toml"
        )
    recording = application.settings.recording
    if recording.path is None or recording.mode != "replay":  # else nobody is asked
        for client in clients.values():
            client.resolved_api_key()
    return application


def writable(path: Path | None, option: str) -> None:
    """Refuse a file that could not be written at the end of the work, before the work begins.

    Raises:
        typer.BadParameter: If it can't be written, and why.
    """
    if path is None:
        return
    if path.is_dir():
        raise refused(option, f"{path} is a directory; name a file")
    if not path.parent.is_dir():
        raise refused(option, f"no such directory: {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise refused(option, f"no permission to write {path}")


def _imported(option: str, module: str, attribute: str) -> Any:
    """Import a module, from the current directory too, and walk to the attribute."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise refused(option, f"no module {module!r} here ({here}) or among the installed ones") from error
        raise refused(option, f"importing {module!r} failed: {error}") from error
    except OtpyError as error:
        raise refused(option, f"importing {module!r} failed: {error}") from error
    except Exception as error:
        raise refused(option, f"importing {module!r} failed: {type(error).__name__}: {error}") from error
    for step in attribute.split("."):
        try:
            found = getattr(found, step)
        except AttributeError as error:
            names = ", ".join(sorted(name for name in vars(found) if not name.startswith("_"))[:12])
            raise refused(option, f"{module!r} has no {attribute!r}; it has: {names}") from error
    return found


def _kind(value: object) -> str:
    name = getattr(value, "__name__", None)
    return f"{type(value).__name__} {name}" if name else f"of type {type(value).__name__}"


def refused(option: str, why: str) -> typer.BadParameter:
    """Return the error for an option whose value can't be used, with the reason."""
    return typer.BadParameter(why, param_hint=option)
