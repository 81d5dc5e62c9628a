"""`python -m otpy` is the command `otpy`."""

from __future__ import annotations

import sys

from otpy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
