"""What others have built, and otpy runs on or works with; each needs an extra."""

from __future__ import annotations
