"""From `git clone` to the first token of an answer, as a newcomer waits for it: `python -m load.start_bench --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self

import psutil

from deployments.haproxy import free_port
from load.client import Client, LoadError

ROOT = Path(__file__).parents[1]
# A compilation on a slow machine, with everything else.
MAKE_SECONDS = 3600.0
STOP_SECONDS = 60.0
READY = "RustyGPT is ready at "
# What `make run` prints, and the phase that begins with it. One that does not come has no phase.
PHASES = {
    "Creating the environment": "environment",
    "Installing llama": "compile",
    "Installing the pinned dependencies": "dependencies",
    "Starting PostgreSQL": "start",
}


class Phases:
    """Seconds of each phase, one after another without a gap."""

    def __init__(self, first: str) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._since = first, time.perf_counter()

    def begin(self, name: str, at: float | None = None) -> None:
        """Ends the phase before. The instant is now, or one of time.perf_counter."""
        instant = time.perf_counter() if at is None else at
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + instant - self._since
        self._name, self._since = name, instant

    def figures(self) -> dict[str, Any]:
        """All phases, and their sum."""
        phases = {name: round(seconds, 2) for name, seconds in self.seconds.items()}
        return {"phases": phases, "seconds": round(sum(self.seconds.values()), 2)}


class MakeRun:
    """`make run` in a folder with the sources, which serves inside the `with`; its phases are noted. What it starts is
    stopped at the end as by Ctrl-C, whatever happened."""

    def __init__(self, sources: Path, environment: dict[str, str], log: Path, phases: Phases) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._sources, self._environment, self._log, self._phases = sources, environment, log, phases
        self._lines: queue.Queue[tuple[float, str]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            ["make", "run", f"PORT={self._port}"],
            cwd=self._sources,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the driver, which then stops what it started
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        deadline = time.monotonic() + MAKE_SECONDS
        while True:
            try:
                at, line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise LoadError(f"make run took longer than {MAKE_SECONDS:.0f} s; see {self._log}") from None
            if not line:
                raise LoadError(f"make run ended:\n{self._log.read_text()[-2000:]}")
            for words, phase in PHASES.items():
                if words in line:
                    _say(f"  {phase}")
                    self._phases.begin(phase, at)
            if READY in line:
                self._phases.begin("first token", at)
                return

    def _read(self, process: subprocess.Popen[str]) -> None:
        """To the end, so that the product never waits for somebody to read what it prints."""
        assert process.stdout is not None
        with self._log.open("a") as log:
            for line in process.stdout:
                self._lines.put((time.perf_counter(), line))
                log.write(line)
                log.flush()
        self._lines.put((time.perf_counter(), ""))

    def _stop(self) -> None:
        if self._process is None:
            return
        started = []
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(self._process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        for process in [self._process, *started]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self._process.wait()


class Newcomer:
    """One installation in a folder of its own, and the account in it."""

    def __init__(self, sources: Path, folder: Path, environment: dict[str, str]) -> None:
        self._sources, self._folder, self._environment = sources, folder, environment
        self._password = secrets.token_urlsafe()

    def start(self, phases: Phases) -> dict[str, Any]:
        """From `make run` to the first token; then everything is stopped."""
        with MakeRun(self._sources, self._environment, self._folder / "make.log", phases) as run:
            client = Client(run.url)
            client.enter_as_admin("ann", self._password)
            chat = client.chat(client.converse("Colours"), "Name three colours.")
            client.close()
        phases.begin("", chat.first_token)
        return phases.figures()


def _environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of the product, and without what `make` tells its own children."""
    foreign = ("RUSTYGPT", "RAY_", "DATABASE_URL", "MAKE", "MFLAGS", "CMAKE_ARGS", "VIRTUAL_ENV", "XDG_", "PIP_CACHE")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | settings


def measure_cold(folder: Path) -> tuple[Newcomer, dict[str, Any]]:
    """Clones this repository's last commit and starts it with a home and caches that are empty."""
    sources, home = folder / "rustygpt", folder / "home"
    home.mkdir()
    environment = _environment(HOME=str(home), XDG_CACHE_HOME=str(home / "cache"), PIP_CACHE_DIR=str(home / "pip"))
    phases = Phases("clone")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(sources)], check=True)
    phases.begin("environment")
    newcomer = Newcomer(sources, folder, environment)
    return newcomer, newcomer.start(phases)


def measure_warm(newcomer: Newcomer, times: int) -> dict[str, Any]:
    """Starts an installation again, as often."""
    starts = []
    for number in range(times):
        _say(f"warm, {number + 1} of {times}")
        starts.append(newcomer.start(Phases("make")))
    return {"seconds": round(median(start["seconds"] for start in starts), 2), "starts": starts}


def measure(warm_only: bool, times: int, folder: Path) -> dict[str, Any]:
    """All figures."""
    if warm_only:
        newcomer = Newcomer(ROOT, folder, _environment(RUSTYGPT_HOME=str(folder / "home")))
        _say("a first start, which does not count")
        newcomer.start(Phases("make"))
        return {"warm": measure_warm(newcomer, times)}
    _say("cold")
    newcomer, cold = measure_cold(folder)
    return {"cold": cold, "warm": measure_warm(newcomer, times)}


def machine() -> dict[str, Any]:
    """What was measured on."""
    commit = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return {
        "processor": _processor(),
        "cores": len(psutil.Process().cpu_affinity() or []) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "commit": subprocess.run(commit, check=True, stdout=subprocess.PIPE, text=True).stdout.strip(),
        # Others at work on the machine before the start: their share is missing in every figure.
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    on = figures["machine"]
    lines = [
        f"{on['processor']}, {on['cores']} cores, {on['memory_gib']} GiB, commit {on['commit']}, "
        f"load average before {on['load_average_before']}"
    ]
    if cold := figures.get("cold"):
        lines += ["", "clone to first token, seconds", *_rows(cold["phases"]), *_rows({"all": cold["seconds"]})]
    starts = figures["warm"]["starts"]
    names = {name: None for start in starts for name in start["phases"]}
    lines += ["", f"make run to first token, once it was started, seconds (median of {len(starts)})"]
    lines += _rows({name: median(start["phases"].get(name, 0.0) for start in starts) for name in names})
    lines += _rows({"all": figures["warm"]["seconds"]})
    return "\n".join(lines)


def _rows(seconds: dict[str, float]) -> list[str]:
    return [f"  {name:<16}{value:>9.1f}" for name, value in seconds.items()]


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rustygpt-start-"))
    # The database server may run as another user, who must reach its folder.
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        _end_database(folder)
        if keep:
            _say(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def _end_database(folder: Path) -> None:
    """The product's server, where the product could not stop it itself: it is nobody's child."""
    for note in folder.rglob("postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            server = psutil.Process(int(note.read_text().split("\n")[0]))
            if str(note.parent) in " ".join(server.cmdline()):
                server.terminate()
                server.wait(STOP_SECONDS)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m load.start_bench", description=__doc__)
    parser.add_argument(
        "--warm-only", action="store_true", help="this working tree, set up as it is, with data of its own; no clone"
    )
    parser.add_argument("--times", type=int, default=None, help="warm starts; 1, with --warm-only 5")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    parser.add_argument("--keep", action="store_true", help="do not delete the clone, its home and its log")
    arguments = parser.parse_args()
    times = arguments.times or (5 if arguments.warm_only else 1)
    # Asked to end, it must still stop what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    on = machine()
    try:
        with _folder(arguments.keep) as folder:
            figures = {"machine": on} | measure(arguments.warm_only, times, folder)
    except (LoadError, subprocess.CalledProcessError) as error:
        sys.exit(f"start_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(figures) if arguments.json else table(figures))


if __name__ == "__main__":
    main()
