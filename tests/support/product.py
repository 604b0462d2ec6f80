"""The product as an operator runs it: `rustygpt serve` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from deployments.haproxy import free_port

# What was verified and measured of this machine: runs after the first one find it here.
TUNING = Path(tempfile.gettempdir()) / f"rustygpt-test-tuning-{os.getuid()}"
RUSTYGPT = [sys.executable, "-m", "cli"]
START_SECONDS = 300.0


def environment(home: Path, **extra: str) -> dict[str, str]:
    """This process's environment without settings of its own, for a product whose data lie in `home`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUSTYGPT", "RAY_", "DATABASE_URL"))}
    own = {"RUSTYGPT_HOME": str(home), "RUSTYGPT__LLM__TUNING_FOLDER": str(TUNING), "PYTHONUNBUFFERED": "1"}
    # A measurement in the background would take the cores between two tests.
    own["RUSTYGPT__LLM__TUNING"] = "off"
    return kept | own | extra


class Product:
    """One installation: a home, a port, and the process while it runs."""

    def __init__(self, home: Path, **extra: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home.with_suffix(".log")
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the product has said that it is ready."""
        with self.log.open("ab") as log:
            begin = self.log.stat().st_size
            self._process = subprocess.Popen(
                [*RUSTYGPT, "serve", "--port", str(self.port)],
                env=environment(self.home, **self._extra),
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while f"RustyGPT is ready at {self.url}\n".encode() not in self.log.read_bytes()[begin:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the product did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """Everything that the product runs on this machine, but for the database server."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def replica(self, deployment: str) -> psutil.Process:
        """The process of a deployment's one replica, e.g. "Model"."""
        return self.actor("ServeReplica:", f":{deployment}")

    def actors(self, *words: str) -> list[psutil.Process]:
        """The processes of the product in whose titles all these words are."""
        return [process for process in self.processes() if all(word in _title(process) for word in words)]

    def haproxies(self) -> list[psutil.Process]:
        """HAProxy, the newest first: that one takes new connections, others end those that they have. They are found
        by their files, since one whose parent was killed is nobody's child."""
        files = str(Path((self.home / "runtime-folder").read_text()) / "haproxy")
        found = [process for process in psutil.process_iter() if files in _title(process)]
        return sorted(found, key=lambda process: process.create_time(), reverse=True)

    def database_processes(self) -> list[psutil.Process]:
        """The embedded PostgreSQL: the postmaster first."""
        try:
            postmaster = psutil.Process(int((self.home / "postgres" / "postmaster.pid").read_text().split("\n")[0]))
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, ValueError, psutil.NoSuchProcess):
            return []

    def actor(self, *words: str) -> psutil.Process:
        """The one process of the product in whose title all these words are."""
        found = self.actors(*words)
        assert len(found) == 1, f"{len(found)} processes of {words}: {[_title(p) for p in self.processes()]}"
        return found[0]

    def interrupt(self) -> None:
        """Ctrl-C, which a terminal sends to the whole group, and waits until everything has stopped."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        assert self._process.wait(60) == 0, self.log.read_text()[-4000:]
        self._process = None

    def kill(self) -> None:
        """Kills the command itself, with no chance to stop anything."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Ctrl-C if it runs; whatever is left after a minute is killed."""
        if self._process is None:
            return
        children = self.processes()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._process = None


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
