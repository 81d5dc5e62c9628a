"""What happens inside, told to whoever wants to know: an event bus and the listeners that come with otpy."""

from __future__ import annotations

from otpy.telemetry.bus import attach, attached, detach, emit, span
from otpy.telemetry.log import log_events

__all__ = ["attach", "attached", "detach", "emit", "log_events", "span"]
