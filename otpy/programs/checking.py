"""`check`: what will not work in a program, found before any model is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.native import native_fields
from otpy.clients.dialects import codec
from otpy.clients.profiles import PROFILES
from otpy.errors import LMRequestInvalid, OtpyError, ProgramError
from otpy.lm import FrozenJSON, LMRequest, Tool
from otpy.programs.dry_run import DryRun, Finding, contract_of
from otpy.programs.sampling import Unknown, sample, ways

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otpy.clients.codec import Profile
    from otpy.config import Settings
    from otpy.programs.predict import Predict
    from otpy.programs.program import Program

__all__ = ["Checked", "Finding", "check"]

_TURNS: Final = 8
"""Runs at most: choices with more values are tried in part."""

_TOOL: Final = Tool("a_tool", "stands for any", FrozenJSON.of({"type": "object", "properties": {}}))


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` has found; true if that is nothing.

    Args:
        findings: What will not work.
        notes: What could not be looked at, and why.
        runs: How often `forward` was run; 0 for a program that needs no run, as a `Predict`.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    runs: int = 0

    def __bool__(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """Print findings, then notes."""
        lines = [str(finding) for finding in self.findings] or ["nothing found"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def raise_for_findings(self) -> None:
        """Raise an error if there are findings.

        Raises:
            ProgramError: With all of them.
        """
        if self.findings:
            raise ProgramError("; ".join(map(str, self.findings)))


def check(
    program: Program,
    *,
    profile: str | None = None,
    settings: Settings | None = None,
    outputs: Iterable[str] = (),
    example: Mapping[str, Any] | None = None,
) -> Checked:
    """Return what will not work in a program: inputs and outputs that do not meet, types, parameters a model refuses.

    A composition's `forward` is really run, with stand-ins for its predictors that answer at once with made-up values
    of the right types: once for each value of a choice (`Literal`, `bool`, `X | None`), eight times at most. So code of
    yours in it that writes or sends something does so. What lies on a path that no such value leads to is not seen;
    predictors never reached are named in a note.

    Args:
        program: The program.
        profile: The kind of deployment that all predictors will ask, one of `otpy.clients.profiles.PROFILES`.
        settings: The settings that say what each client is, instead of `profile`.
        outputs: Outputs that the program must return.
        example: Inputs to run `forward` with; those that are not given are made up from its annotations.

    Raises:
        ProgramError: If there is no such profile, or both `profile` and `settings` are given.

    Example:
        >>> from otpy.programs import Predict, Program
        >>> from otpy.programs.checking import check
        >>> class Answer(Program):
        ...     rewrite: Predict = Predict("question -> query")
        ...     answer: Predict = Predict("query, context -> answer")
        ...
        ...     async def forward(self, question):
        ...         rewritten = await self.rewrite.acall(question=question)
        ...         return await self.answer.acall(query=rewritten.qurey)
        >>> print(check(Answer()))
        rewrite: no 'qurey' is produced here, and forward reads it; it produces query
        note: never asked on the paths that were tried: answer
    """
    if profile is not None and settings is not None:
        raise ProgramError("check(profile=…, settings=…): give one of them")
    if profile is not None and profile not in PROFILES:
        raise ProgramError(f"profile={profile!r}; allowed: {', '.join(PROFILES)}")
    findings: list[Finding] = []
    notes: dict[str, None] = {}
    asked: dict[str, Mapping[str, Any]] = {}
    runs, missing = 0, set[str]()
    contract = contract_of(program)
    if contract is not None:
        missing |= {name for name in outputs if name not in contract.output_fields}
    else:
        turns, left_out = _turns(program)
        for turn in range(turns):
            run = DryRun(program, dict(example or {}), turn)
            run()
            runs += 1
            findings += run.findings
            notes.update(dict.fromkeys(run.notes))
            asked = {**run.asked, **asked}
            if run.result is not None:
                missing |= {name for name in outputs if name not in run.result}
            if run.calls == 0 or run.result is None:
                break  # it would end in the same way
        if left_out:
            notes[f"{left_out} has more than {_TURNS} values; {_TURNS} of them were tried"] = None
        never = [path for path in _reachable(program) if path not in asked]
        if never:
            notes[f"never asked on the paths that were tried: {', '.join(never)}"] = None
    for name in sorted(missing):
        findings.append(Finding("program", "output missing", f"it returns no {name!r}, which is wanted", name))
    findings += _refused(program, asked, profile, settings)
    once = {(found.path, found.kind, found.field or found.text): found for found in reversed(findings)}
    return Checked(tuple(reversed(once.values())), tuple(notes), runs)


def _turns(program: Program) -> tuple[int, str]:
    """How many runs see every choice once, and the field whose choices are too many for that."""
    most, widest = 1, ""
    for path, predictor in program.named_predictors():
        for field in predictor.signature.output_fields.values():
            if (number := ways(field)) > most:
                most, widest = number, f"{path}.{field.name}"
    return min(most, _TURNS), widest if most > _TURNS else ""


def _reachable(program: Program, at: str = "") -> Iterator[str]:
    """The paths of all programs that are stood in for."""
    for path, part in program._children():  # noqa: SLF001 - our own class
        where = f"{at}.{path}" if at else path
        if contract_of(part) is not None:
            yield where
        else:
            yield from _reachable(part, where)


# -- what a model refuses -------------------------------------------------------------------------------------------


def _refused(
    program: Program, asked: Mapping[str, Mapping[str, Any]], profile: str | None, settings: Settings | None
) -> Iterator[Finding]:
    for path, predictor in program.named_predictors():
        names = [profile] if profile is not None else []
        if settings is not None:
            clients = settings.routes[predictor.client].members if predictor.client in settings.routes else ()
            for client in clients or (predictor.client,):
                if client in settings.clients:
                    names.append(settings.clients[client].effective_profile)
                else:
                    known = ", ".join([*settings.clients, *settings.routes]) or "none"
                    yield Finding(path, "model", f"no client is called {client!r}; there are {known}")
        for name in dict.fromkeys(names):
            if said := _said_no(predictor, asked.get(path, {}), PROFILES[name], path):
                yield Finding(path, "model", said)


def _said_no(predictor: Predict, given: Mapping[str, Any], profile: Profile, path: str) -> str:
    """Encode the question as it would be sent, and return what its dialect cannot say."""
    inputs = {
        name: given[name] if name in given and not isinstance(given[name], Unknown) else sample(field, f"{path}.{name}")
        for name, field in predictor.signature.input_fields.items()
    }
    try:
        messages = predictor.messages(**inputs)
    except OtpyError:  # a value that could not be made up; parameters are looked at without it
        messages = ()
    schema = predictor.adapter.schema(predictor.signature)
    if schema is not None and schema.optional and not profile.schema:
        schema = None
    native = native_fields(predictor.adapter, predictor.signature)
    tools = (_TOOL,) if native.inputs or any(kind.native == "tool_calls" for _, kind in native.outputs) else ()
    max_tokens = predictor.max_tokens or profile.most_tokens
    request = LMRequest(messages, schema, predictor.temperature, max_tokens, tools=tools)
    try:
        codec(profile.dialect).encode(replace(request, rollout=predictor.rollout), model="model", profile=profile)
    except LMRequestInvalid as error:
        return str(error)
    return ""
