"""`Tpe`: which combination of choices to try next, by the tree-structured Parzen estimator.

Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", as Optuna has it (Akiba et al. 2019).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INSTALL", "Tpe"]

INSTALL: Final = "pip install 'otpy-framework[optuna]' (in a checkout: pip install -e '.[optuna]')"
STARTUP: Final = 10
"""Trials by chance before the estimator has something to go on, as in Optuna."""


class Tpe:
    """A seeded study over choices, asked and told: the same answers lead to the same questions.

    Several may be asked before the first is told; those under way count as bad ones until they are (`constant_liar`),
    so that no two trials go the same way.

    Args:
        choices: How many alternatives there are, by the name of the choice; each at least 1.
        seed: All chance comes from it.
        startup: Trials by chance before the estimator is used.

    Raises:
        TeleprompterError: If Optuna is not installed.

    Example:
        >>> from otpy.teleprompters.tpe import Tpe
        >>> study = Tpe({"instruction": 3}, seed=0)
        >>> number, choice = study.ask()
        >>> study.tell(number, 0.5)
        >>> choice == Tpe({"instruction": 3}, seed=0).ask()[1]
        True
    """

    def __init__(self, choices: Mapping[str, int], *, seed: int, startup: int = STARTUP) -> None:
        """Begin a study in memory."""
        try:
            import optuna  # noqa: PLC0415 - an extra, and slow to import
        except ImportError as error:
            raise TeleprompterError(f"this search needs Optuna: {INSTALL}") from error
        self._optuna: Any = optuna
        self._space = {
            name: optuna.distributions.CategoricalDistribution(list(range(count))) for name, count in choices.items()
        }
        said = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # that a study was made is no news
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # both options are called experimental by older versions
                sampler = optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, constant_liar=True, n_startup_trials=startup
                )
            self._study: Any = optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(said)

    def ask(self) -> tuple[int, dict[str, int]]:
        """Return a trial's number and which alternatives it is of."""
        trial = self._study.ask(self._space)
        return trial.number, {name: int(trial.params[name]) for name in self._space}

    def tell(self, number: int, score: float) -> None:
        """Take in how a trial that was asked for went.

        Args:
            number: The trial.
            score: The more, the better.
        """
        self._study.tell(number, score)

    def learn(self, choice: Mapping[str, int], score: float) -> None:
        """Take in how alternatives did that were not asked for.

        Args:
            choice: The alternatives.
            score: The more, the better.
        """
        made = self._optuna.trial.create_trial(params=dict(choice), distributions=self._space, value=score)
        self._study.add_trial(made)
