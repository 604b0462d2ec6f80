"""This process's own standard error, whatever has been put in the place of `sys.stderr`.

In Ray's workers it is a file of the session, in which also arrives what native code says before it dies. Ray Serve
replaces `sys.stderr` by a logger, and drops what that is given.
"""

from __future__ import annotations

import logging
import os
import select
import threading

STANDARD_ERROR = 2

# Lines of the process's threads, and of the follower of a cluster's files, never run into each other.
_lock = threading.Lock()


def write(text: bytes) -> None:
    """Writes whole lines. Nothing is raised: there is nobody left to tell."""
    rest = memoryview(text)
    with _lock:
        while rest:
            try:
                rest = rest[os.write(STANDARD_ERROR, rest) :]
            except BlockingIOError:
                # A terminal that another program has set to not wait.
                select.select([], [STANDARD_ERROR], [], 1.0)
            except OSError:
                return


class StandardError(logging.Handler):
    """Writes each record at once, in one piece."""

    def emit(self, record: logging.LogRecord) -> None:
        """Like every handler's. A record that cannot be formatted is named, without what it holds."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 whoever logs must not fail for it
            fault = f"the log line at {record.filename}:{record.lineno} could not be made: {type(error).__name__}"
            told = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname, "msg": fault}
            line = self.format(logging.makeLogRecord(told))
        write(f"{line}\n".encode(errors="backslashreplace"))
