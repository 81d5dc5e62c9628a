"""The root of the supervision tree: how an application is started, asked, looked into and stopped."""

from __future__ import annotations

from otpy.application.app import Application
from otpy.application.starting import start

__all__ = ["Application", "start"]
