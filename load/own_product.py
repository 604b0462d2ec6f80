"""A product for one measurement: data in a temporary home, a free port, nothing left afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from deployments.haproxy import free_port
from load.client import LoadError

START_SECONDS = 180.0
STOP_SECONDS = 60.0
RUSTYGPT = [sys.executable, "-m", "cli"]


def own_environment(home: Path, **settings: str) -> dict[str, str]:
    """This process's environment with none of its settings of the product, but those given."""
    # Measured once a machine, not once a run.
    tuning = {"RUSTYGPT__LLM__TUNING_FOLDER": str(Path(tempfile.gettempdir()) / "rustygpt-tuning")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUSTYGPT", "RAY_", "DATABASE_URL"))}
    return kept | {"RUSTYGPT_HOME": str(home), "PYTHONUNBUFFERED": "1"} | tuning | settings


def model_settings() -> dict[str, Any]:
    """Settings of the model that answers in conversations, as a product of this shell sees them."""
    shown = subprocess.run([*RUSTYGPT, "config", "show"], check=True, stdout=subprocess.PIPE, text=True)
    llm = yaml.safe_load(shown.stdout)["llm"]
    return llm["models"][llm["default_model"]]


class OwnProduct:
    """`rustygpt serve`, ready inside the `with`. The settings are environment variables of the product."""

    def __init__(self, **settings: str) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        # The database server may run as another user, who must reach its folder.
        self.folder = Path(tempfile.mkdtemp(prefix="rustygpt-bench-"))
        self.folder.chmod(0o711)
        self.home = self.folder / "home"
        self.environment = own_environment(self.home, **settings)
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def process(self) -> psutil.Process:
        """The command that runs; all of the product but the database server descends from it."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*RUSTYGPT, "serve", "--port", str(self._port)],
                env=self.environment,
                cwd=self.folder,  # where no rustygpt.toml lies
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the driver, which then stops the product
            )
        deadline = time.monotonic() + START_SECONDS
        while f"RustyGPT is ready at {self.url}\n" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LoadError(f"the product did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_SECONDS)
        shutil.rmtree(self.folder)
