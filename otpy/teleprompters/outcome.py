"""`Outcome`: what an optimization has found, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from otpy.errors import TeleprompterError
from otpy.evaluate.statistics import Paired, mean_interval
from otpy.teleprompters import outcome_table
from otpy.teleprompters.choosing import Objective, Rule, beside, distinct, front, p_values, taking_least
from otpy.teleprompters.outcome_file import save
from otpy.teleprompters.spent import in_dollars

if TYPE_CHECKING:
    import os

    from otpy.programs import Program
    from otpy.teleprompters.tried import Candidate

__all__ = ["Outcome", "Stopped", "front", "marked", "outcome_of"]

Stopped: TypeAlias = Literal["done", "budget", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """What an optimization has found.

    Args:
        optimizer: Which one it was.
        program: The best program.
        best: How it was measured; `None` if the optimizer measures nothing.
        student: How the program was measured that it began with.
        candidates: All that were measured, in the order in which they were found.
        stopped: `"done"`; or `"budget"` or `"stopped"`: then it is the best so far.
        requests: Requests it has made, as the ledger counts them: those of an earlier part of the same run included,
            and those that were in flight when it was stopped.
        tokens: Their tokens.
        seconds: Wall time of this part.
        notes: What else is to be known, as rows of the trainset that are in the valset too.
        money: Dollars it has cost, as far as prices are known, those of an earlier part included; `None` if none is.
        rule: By what the program was chosen.
        data: A hash of the rows.
        seed: What decided its chances.
        money_is_lower_bound: Whether some prices are not known, so that it has cost `money` or more.
    """

    optimizer: str
    program: Program
    best: Candidate | None
    student: Candidate | None
    candidates: tuple[Candidate, ...]
    stopped: Stopped
    requests: int
    tokens: int
    seconds: float
    notes: tuple[str, ...] = ()
    money: Decimal | None = Decimal(0)
    rule: Rule = field(default_factory=Rule)
    data: str = ""
    seed: int = 0
    money_is_lower_bound: bool = False

    @property
    def score(self) -> float | None:
        """The best program's score."""
        return None if self.best is None else self.best.score

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of that score's 95 % interval."""
        return None if self.best is None else mean_interval(self.best.scores.values)

    @property
    def comparison(self) -> Paired | None:
        """The best program beside the student, row by row; `None` if they were not measured on the same rows.

        Its p-value is corrected for how many candidates were measured, as in `p_values`; its interval is of these two.
        """
        if self.best is None or self.student is None:
            return None
        found, best = beside(self.best, self.student), self.best.program
        p_value = next((self.p_values.get(one.name) for one in self.measured if one.program == best), None)
        return found if found is None or p_value is None else found._replace(p_value=p_value)

    @property
    def better(self) -> bool:
        """Whether the program is better than the student, at the rule's level (5 %) of a paired test.

        The p-value is corrected for how many candidates were measured: the best of many is often so by chance.
        """
        found = self.comparison
        return found is not None and found.difference > 0 and found.p_value <= self.rule.level

    # -- all that were measured ------------------------------------------------------------------------------------

    @cached_property
    def measured(self) -> tuple[Candidate, ...]:
        """The candidates that were measured on all rows of the valset, each program once; the student is the first."""
        return tuple(distinct(self.candidates, self.student))

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """Those of the measured ones that no other beats in score, cost and latency at the same time."""
        return tuple(front(self.measured))

    @cached_property
    def p_values(self) -> dict[str, float]:
        """By their names, how often chance makes such a difference to the student, corrected for how many there are."""
        return {} if self.student is None else p_values(self.measured, self.student)

    @property
    def leader(self) -> Candidate | None:
        """The candidate with the highest score, the first of equals, whether it was chosen or not."""
        return max(self.measured, key=lambda one: one.score, default=None)

    def cheapest(self, within: float = 0.02) -> Candidate:
        """Return the candidate that costs least of those whose score is near the best.

        Args:
            within: How near, in the metric's units.

        Raises:
            TeleprompterError: If nothing was measured, or `within` is no number from 0.
        """
        return self._taking_least(Objective("cost", within))

    def fastest(self, within: float = 0.02) -> Candidate:
        """Return the candidate that takes the shortest of those whose score is near the best; as `cheapest`."""
        return self._taking_least(Objective("latency", within))

    def _taking_least(self, objective: Objective) -> Candidate:
        if not self.measured:
            raise TeleprompterError(f"{self.optimizer} has measured no candidates; one that uses a valset does")
        return taking_least(self.measured, objective)

    # -- told ------------------------------------------------------------------------------------------------------

    def table(self, n: int = 20, *, width: int | None = None) -> str:
        """Return the candidates as a table for a terminal, the best first.

        Args:
            n: How many.
            width: Columns; by default those of the terminal.
        """
        return outcome_table.as_text(self, n, width)

    def print(self, n: int = 20) -> None:
        """Print the line, and the candidates as a table.

        Args:
            n: How many.
        """
        outcome_table.printed(str(self), self.notes, self.table(n))

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        return outcome_table.as_html(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was found as JSON, for `load_outcome`: the program, where it comes from, how all candidates did.

        Args:
            path: The file; an older one is replaced at once.

        Raises:
            TeleprompterError: If it cannot be written.
        """
        save(self, path)

    def __str__(self) -> str:
        """Print it in one line."""
        if self.best is None or self.interval is None:
            words = "nothing was measured"
        else:
            low, high = self.interval
            words = f"{100 * self.best.score:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f})"
        if self.comparison is not None and self.student is not None:
            was = f"the student: {100 * self.student.score:.1f} %, p = {self.comparison.p_value:.2g}"
            several = len(self.p_values) > 1 and self.best is not None and self.best.program != self.student.program
            was += f", corrected for {len(self.p_values)}" if several else ""
            words += f"; {was}, {'better' if self.better else 'not shown to be better'}"
        words += self._rule_in_words()
        end = {"done": "", "budget": ", stopped by its budget", "stopped": ", stopped"}[self.stopped]
        money = f", {in_dollars(self.money, lower_bound=self.money_is_lower_bound)}" if self.money else ""
        return f"{self.optimizer}: {words}; {self.requests:,} requests, {self.tokens:,} tokens{money}{end}"

    def _rule_in_words(self) -> str:
        """What became of the rule, if it is not the usual one."""
        rule, leader, words = self.rule, self.leader, ""
        if self.best is None or leader is None or not rule.measures:
            return ""
        level = f"the {100 * rule.level:g} % level, corrected for {len(self.p_values)} candidates"
        if rule.accept == "significant":
            value = self.p_values.get(leader.name)
            none = (
                f"{leader.name!r} scores {100 * leader.score:.1f} %, p = {value:.2g}" if value else "none scores more"
            )
            kept = f"; none is better at {level} ({none}), so the student is returned"
            words = f"; better at {level}" if self.best.program != getattr(self.student, "program", None) else kept
        if rule.objective is not None:
            within, least = f"{100 * rule.objective.within:g}", rule.objective.least
            words += f"; of those within {within} points of the best, this takes the least {least}"
        return words


def marked(program: Any, outcome: Outcome) -> Any:
    """Return an equal program that knows what came of the optimization it comes from.

    Args:
        program: The program.
        outcome: What came of it.
    """
    program._memo["outcome"] = outcome  # noqa: SLF001 - beside the value, and of our own class
    return program


def outcome_of(program: Program) -> Outcome | None:
    """Return what came of the optimization that a program comes from; a changed copy of it no longer knows.

    Args:
        program: The program.
    """
    found: Outcome | None = program._memo.get("outcome")  # noqa: SLF001 - our own class
    return found
