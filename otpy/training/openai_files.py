"""OpenAI's fine-tuning as it is written on the wire: files, jobs and their events. Pure: it sends nothing.

Source: OpenAI API reference, "Files" and "Fine-tuning"; others speak it too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from otpy.clients.openai_errors import UNREADABLE, invalid, object_in
from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.wire import Method

__all__ = ["JobState", "Page", "Plan", "Sent", "files_in", "id_in", "job_in", "jobs_in", "metrics_in"]

MARK: Final = "otpy"
"""The key of a job's metadata under which the plan's own key stands."""
PAGE: Final = 100
"""Jobs or files that are listed at once, as many as the API gives."""
SUFFIX: Final = 64
"""Letters that a suffix may have."""
ENDED: Final = ("succeeded", "failed", "cancelled")
_NUMBERS: Final = {
    "epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate_multiplier": "learning_rate_multiplier",
}
_ALLOWED: Final = (*_NUMBERS, "seed", "suffix")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request.

    Args:
        method: How.
        path: Below the base URL.
        content_type: What the body is.
        body: What.
    """

    method: Method
    path: str
    content_type: str = "application/json"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job is.

    Args:
        id: The provider's name of it.
        status: In its words; `"succeeded"`, `"failed"` and `"cancelled"` are ends.
        model: The new model, once there is one.
        base: The model that is trained.
        error: Why it failed, in the provider's words.
        mark: The key of the plan that it is of, if it is one of ours.
    """

    id: str
    status: str
    model: str | None = None
    base: str | None = None
    error: str = ""
    mark: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list.

    Args:
        items: What is on it.
        after: Where the next one begins; `None` if it is the last.
    """

    items: tuple[Any, ...]
    after: str | None


@dataclass(frozen=True)
class Plan:
    """What is to be trained on what; the same plan has the same key in every process.

    Args:
        model: The base model, as the provider knows it.
        data: The training file: chat JSONL.
        params: `epochs`, `batch_size`, `learning_rate_multiplier` (the provider decides what is not given or `None`),
            `seed`, and `suffix`, a part of the new model's name.

    Raises:
        TeleprompterError: If a parameter has no place in this API, or cannot be its value.

    Example:
        >>> from otpy.training.openai_files import Plan
        >>> plan = Plan("gpt-x", b'{"messages": []}', {"epochs": 2})
        >>> plan.create("file-1").path, plan.body("file-1")["method"]["supervised"]
        ('/fine_tuning/jobs', {'hyperparameters': {'n_epochs': 2}})
    """

    model: str
    data: bytes
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Check the parameters."""
        given = {name: value for name, value in self.params.items() if value is not None}
        object.__setattr__(self, "params", given)
        for name, value in given.items():
            if name not in _ALLOWED:
                raise TeleprompterError(
                    f"{name}={value!r}: a provider's fine-tuning job has no such parameter; there are"
                    f" {', '.join(_ALLOWED)}"
                )
        for name in ("epochs", "batch_size"):
            _check_integer(name, given.get(name), 1)
        _check_integer("seed", given.get("seed"), 0)
        multiplier: Any = given.get("learning_rate_multiplier")
        if multiplier is not None and (
            isinstance(multiplier, bool)
            or not isinstance(multiplier, (int, float))
            or not 0 < multiplier < float("inf")
        ):
            raise TeleprompterError(f"learning_rate_multiplier={multiplier!r}; allowed: a finite number > 0")
        suffix: Any = given.get("suffix")
        if suffix is not None and (not isinstance(suffix, str) or not 0 < len(suffix) <= SUFFIX):
            raise TeleprompterError(f"suffix={suffix!r}; allowed: a text of 1 to {SUFFIX} letters")

    @property
    def key(self) -> str:
        """What tells it from every other plan: a hash of the model, the data and the parameters."""
        told = json.dumps([self.model, hashlib.sha256(self.data).hexdigest(), self.params], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:24]

    @property
    def file_name(self) -> str:
        """What the file is called at the provider, by its content: plans on the same data share it."""
        return f"otpy-{hashlib.sha256(self.data).hexdigest()[:24]}.jsonl"

    # -- requests --------------------------------------------------------------------------------------------------

    def upload(self) -> Sent:
        """Return the request that uploads the file."""
        edge = hashlib.sha256(b"edge" + self.data).hexdigest()  # nothing that is hashed into it can hold it
        head = (
            f'--{edge}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="{self.file_name}"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        )
        body = head.encode() + self.data + f"\r\n--{edge}--\r\n".encode()
        return Sent("POST", "/files", f"multipart/form-data; boundary={edge}", body)

    def body(self, file: str) -> dict[str, Any]:
        """Return what creates the job, as JSON data.

        Args:
            file: The uploaded file's id.
        """
        numbers = {theirs: self.params[ours] for ours, theirs in _NUMBERS.items() if ours in self.params}
        more = {name: self.params[name] for name in ("seed", "suffix") if name in self.params}
        method = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
        return {"model": self.model, "training_file": file, "method": method, "metadata": {MARK: self.key}, **more}

    def create(self, file: str) -> Sent:
        """Return the request that creates the job."""
        return Sent("POST", "/fine_tuning/jobs", body=json.dumps(self.body(file)).encode())

    def list_files(self, after: str | None = None) -> Sent:
        """Return the request for a page of files."""
        return _listed("/files", {"purpose": "fine-tune"}, after)

    def list_jobs(self, after: str | None = None) -> Sent:
        """Return the request for a page of jobs with our mark; a server may give others too."""
        return _listed("/fine_tuning/jobs", {f"metadata[{MARK}]": self.key}, after)

    @staticmethod
    def job(job: str) -> Sent:
        """Return the request for how a job is."""
        return Sent("GET", f"/fine_tuning/jobs/{quote(job, safe='')}")

    @staticmethod
    def events(job: str) -> Sent:
        """Return the request for what has happened in it, the latest first."""
        return Sent("GET", f"/fine_tuning/jobs/{quote(job, safe='')}/events?limit=20")

    @staticmethod
    def cancel(job: str) -> Sent:
        """Return the request to end it."""
        return Sent("POST", f"/fine_tuning/jobs/{quote(job, safe='')}/cancel")

    # -- what is there already -------------------------------------------------------------------------------------

    def own_job(self, jobs: tuple[JobState, ...]) -> JobState | None:
        """Return the job of this plan, if it is among these: one that succeeded before one that goes on."""
        ours = [job for job in jobs if job.mark == self.key and job.status not in {"failed", "cancelled"}]
        return min(ours, key=lambda job: job.status != "succeeded", default=None)


def _listed(path: str, query: Mapping[str, str], after: str | None) -> Sent:
    more = {} if after is None else {"after": after}
    return Sent("GET", f"{path}?{urlencode({**query, 'limit': str(PAGE), **more})}")


def _check_integer(name: str, value: object, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise TeleprompterError(f"{name}={value!r}; allowed: an integer >= {least}, or None")


# -- answers --------------------------------------------------------------------------------------------------------


def id_in(body: bytes, what: str) -> str:
    """Return the id of what was made.

    Args:
        body: The answer.
        what: What it should be, for the message.

    Raises:
        LMResponseInvalid: If there is none in it.
    """
    return _id(_read(body, what), body, what)


def job_in(body: bytes) -> JobState:
    """Return how a job is.

    Raises:
        LMResponseInvalid: If this is none.

    Example:
        >>> from otpy.training.openai_files import job_in
        >>> job_in(b'{"id": "ftjob-1", "status": "running", "model": "gpt-x"}').ended
        False
    """
    return _job(_read(body, "a fine-tuning job"), body)


def jobs_in(body: bytes) -> Page:
    """Return a page of jobs.

    Raises:
        LMResponseInvalid: If this is none.
    """
    return _page(body, "a list of fine-tuning jobs", _job)


def files_in(body: bytes) -> Page:
    """Return a page of files, as pairs of name and id; the name of one that the provider could not use is `None`.

    Raises:
        LMResponseInvalid: If this is none.
    """
    return _page(body, "a list of files", _file)


def metrics_in(body: bytes) -> tuple[int, int | None, dict[str, float], str]:
    """Return the last step that is told of, how many there are, its figures, and the last thing that was said.

    Args:
        body: A page of events, the latest first.

    Raises:
        LMResponseInvalid: If this is none.
    """
    said = ""
    try:
        for event in map(object_in, _read(body, "a list of events")["data"]):
            said = said or str(event.get("message") or "")
            data = object_in(event.get("data"))
            if isinstance(data.get("step"), int):
                figures = {
                    name: float(value)
                    for name, value in data.items()
                    if name not in {"step", "total_steps"}
                    and isinstance(value, (int, float))
                    and not isinstance(value, bool)
                }
                total = data.get("total_steps")
                return data["step"], total if isinstance(total, int) else None, figures, said
    except UNREADABLE as error:
        raise invalid("the answer is not a list of events", body) from error
    return 0, None, {}, said


def _read(body: bytes, what: str) -> dict[str, Any]:
    try:
        found = object_in(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise invalid(f"the answer is not {what}", body) from error
    return found


def _page(body: bytes, what: str, read: Any) -> Page:
    found = _read(body, what)
    listed: Any = found.get("data")
    if not isinstance(listed, list):
        raise invalid(f"the answer is not {what}", body)
    items: list[Any] = [object_in(item) for item in listed]  # pyright: ignore[reportUnknownVariableType]
    after = _id(items[-1], body, what) if found.get("has_more") and items else None
    return Page(tuple(read(item, body) for item in items), after)


def _file(found: Mapping[str, Any], body: bytes) -> tuple[str | None, str]:
    usable = found.get("status") not in {"error", "deleted"}
    return found.get("filename") if usable else None, _id(found, body, "a file")


def _id(found: Mapping[str, Any], body: bytes, what: str) -> str:
    named = found.get("id")
    if not isinstance(named, str) or not named:
        raise invalid(f"the answer is not {what}, which has an id", body)
    return named


def _job(found: Mapping[str, Any], body: bytes) -> JobState:
    status = found.get("status")
    if not isinstance(status, str) or not status:
        raise invalid("the answer is not a fine-tuning job, which has a status", body)
    model, error, mark = found.get("fine_tuned_model"), object_in(found.get("error")), object_in(found.get("metadata"))
    if status == "succeeded" and (not isinstance(model, str) or not model):
        raise invalid("the job has succeeded, and its answer names no model", body)
    words = " ".join(str(error[name]) for name in ("message", "code", "param") if error.get(name))
    base, marked = found.get("model"), mark.get(MARK)
    return JobState(
        _id(found, body, "a fine-tuning job"),
        status,
        model if isinstance(model, str) else None,
        base if isinstance(base, str) else None,
        words,
        marked if isinstance(marked, str) else None,
    )
