"""What the rows are exercised with: a scripted model on a real loopback server, and an application that asks it."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

import otpy
from otpy.testing import FakeProvider


@contextmanager
def running(*said, dialect="openai_chat", cache=False, **client):
    """Run an application whose model says these in turn, the last of them ever after; yields it with its provider."""
    left = list(said)

    def script(request):
        answer = left.pop(0) if len(left) > 1 else left[0]
        answer = answer(request) if callable(answer) else answer
        return json.dumps(answer) if isinstance(answer, dict) else answer

    with FakeProvider(script) as fake:
        settings = {"model": "acme/m", "base_url": fake.url(dialect), "api_key": "none", **client}
        app = otpy.start(settings={"clients": {"default": settings}, "cache": {"enabled": cache}})
        with app:
            yield app, fake


@pytest.fixture
def model():
    return running
