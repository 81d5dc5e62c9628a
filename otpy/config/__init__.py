"""Settings: one frozen value, and the process that replaces it."""

from __future__ import annotations

from otpy.config.settings import BreakerSettings, CacheSettings, ClientSettings, RetrySettings, Settings

__all__ = ["BreakerSettings", "CacheSettings", "ClientSettings", "RetrySettings", "Settings"]
