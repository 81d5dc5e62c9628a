"""Restart intensity: how many restarts in how many seconds are a hiccup, and from where on a supervisor gives up.

Source: `supervisor(3)`, "Tuning the intensity and period".
"""

from __future__ import annotations

from collections import deque

from otpy.errors import InvalidChildSpec

__all__ = ["Intensity"]


class Intensity:
    """A sliding window over the moments of restarts.

    Args:
        max_restarts: Restarts that are tolerated within the window, at least 0.
        max_seconds: The window's length in seconds, more than 0.

    Raises:
        InvalidChildSpec: If a number is out of range.

    Example:
        >>> from otpy.supervisors.intensity import Intensity
        >>> intensity = Intensity(max_restarts=1, max_seconds=5)
        >>> [intensity.add(now) for now in (0.0, 3.0, 9.0)]
        [True, False, True]
    """

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        """Start with no restart seen."""
        if isinstance(max_restarts, bool) or not isinstance(max_restarts, int) or max_restarts < 0:
            raise InvalidChildSpec("max_restarts", max_restarts, "an integer >= 0")
        if isinstance(max_seconds, (bool, str)) or not isinstance(max_seconds, (int, float)) or not max_seconds > 0:
            raise InvalidChildSpec("max_seconds", max_seconds, "seconds > 0")
        self.max_restarts, self.max_seconds = max_restarts, max_seconds
        self._moments: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a restart; `False` if it is one too many.

        Args:
            now: Seconds, of a clock that never goes back.
        """
        moments = self._moments
        while moments and now - moments[0] > self.max_seconds:
            moments.popleft()
        moments.append(now)
        if len(moments) > self.max_restarts:
            moments.popleft()
            return False
        return True
