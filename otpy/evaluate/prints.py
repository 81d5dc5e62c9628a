"""What worker processes print: it comes through a named pipe to our standard error, as it is.

The pipe is read by a thread that does nothing else, so a flood of words holds up nobody but whoever prints it.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

__all__ = ["Prints"]


class Prints:
    """A pipe with a name, whose other end is our standard error.

    What was printed and not yet shown when it is closed is shown still.

    Example:
        >>> import os
        >>> from otpy.evaluate.prints import Prints
        >>> prints = Prints()
        >>> os.close(os.open(prints.path, os.O_WRONLY))
        >>> prints.close()
    """

    def __init__(self) -> None:
        """Make the pipe, in a directory that only we may enter."""
        self._directory = tempfile.mkdtemp(prefix="otpy-")
        self.path = str(Path(self._directory) / "prints")
        """Where it is; to be opened for writing."""
        os.mkfifo(self.path)
        self._reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # else it would wait for a writer
        self._open = os.open(self.path, os.O_WRONLY)  # ours, so that there is no end before we say so
        os.set_blocking(self._reading, True)
        self._thread = threading.Thread(target=self._show, name="otpy-prints", daemon=True)
        self._thread.start()

    def _show(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while printed := os.read(self._reading, 65_536):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or there is none
                sys.stderr.write(decode(printed))
                sys.stderr.flush()
        os.close(self._reading)

    def close(self, patience: float = 1.0) -> None:
        """Show what has been printed and close the pipe, when all who print have ended.

        Args:
            patience: Seconds to wait for those who have not.
        """
        os.close(self._open)
        self._thread.join(patience)
        shutil.rmtree(self._directory, ignore_errors=True)
