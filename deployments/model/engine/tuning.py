"""How to run a model on this machine: measured once (autotune.py), kept on disk, found again by the model, the
processor and the build."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deployments.model.engine.bindings import own_products
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.model_file import digest
from deployments.model.engine.request import EngineOptions

logger = logging.getLogger(__name__)

VERSION = 4
AUTOTUNE_SECONDS = 1800.0
GIVEN = "as given"


@dataclass(frozen=True)
class Tuning:
    """What was chosen; None: what the engine takes otherwise, for `weights` the given file. `measured` says what was
    tried, with gains and losses."""

    format: str = GIVEN
    weights: Path | None = None
    wait_policy: str = "default"
    n_threads: int | None = None
    n_batch: int | None = None
    n_ubatch: int = 512
    kv_unified: bool = False
    flash_attention: bool = True
    huge_pages: bool = False
    measured: dict[str, Any] = field(default_factory=dict)

    def prepare_process(self) -> None:
        """Sets how threads wait. Without effect once this process has loaded llama.cpp."""
        if self.wait_policy != "default":
            os.environ["OMP_WAIT_POLICY"] = self.wait_policy

    def model_file(self, given: Path) -> Path:
        """The file to load."""
        return self.weights if self.weights and self.weights.is_file() else given

    def applied(self, options: EngineOptions) -> EngineOptions:
        """The options with what was measured."""
        return dataclasses.replace(
            options,
            n_threads=self.n_threads or options.n_threads,
            n_batch=self.n_batch or options.n_batch,
            n_ubatch=self.n_ubatch,
            kv_unified=self.kv_unified,
            flash_attention=self.flash_attention,
            huge_pages=self.huge_pages,
        )


class Tunings:
    """A folder with a file for each model, machine and build, and with the weights that were made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, model: Path, weights: str) -> Tuning | None:
        """What was measured before, or None. `weights` is "auto" or "as_is"."""
        try:
            found = json.loads(self._file(model, weights).read_text())
            made = found.pop("weights")
            tuning = Tuning(weights=Path(made) if made else None, **found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("the measurements for %s cannot be used and are made anew: %s", model, error)
            return None
        return None if tuning.weights and not tuning.weights.is_file() else tuning

    def obtain(self, model: Path, weights: str) -> Tuning:
        """What was measured before, else measures now, which takes about a minute for a small model. One process of
        the machine measures at a time. When it cannot be done, the log says why, `measured` has the `fault`, the model
        runs as it is, and that is kept as well: it would be no other the next time."""
        # Not behind another model's measurement, where there is nothing to measure.
        if found := self.find(model, weights):
            return found
        try:
            with self._alone():
                return self.find(model, weights) or self._measure(model, weights)
        except OSError as error:
            logger.warning("measurements cannot be kept in %s: %s; %s runs as it is", self._folder, error, model)
            return Tuning(measured={"fault": str(error)})

    def _measure(self, model: Path, weights: str) -> Tuning:
        file = self._file(model, weights)
        logger.info("measuring how this machine runs %s best: once, about a minute for a small model", model.name)
        command = [sys.executable, "-m", "deployments.model.engine.autotune", str(model), str(file), weights]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=AUTOTUNE_SECONDS)
        except subprocess.SubprocessError as error:
            return self._give_up(model, file, error)
        tuning = self.find(model, weights)
        if tuning is None:
            raise OSError(f"{file} was not written")
        logger.info("%s runs with weights %s: %s", model.name, tuning.format, json.dumps(tuning.measured))
        return tuning

    def _give_up(self, model: Path, file: Path, error: subprocess.SubprocessError) -> Tuning:
        for left in self._folder.glob(f"{file.stem}-*"):
            left.unlink()
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        fault = lines[-1] if lines else type(error).__name__
        logger.warning("%s could not be measured and runs as it is: %s; delete %s to try again", model, fault, file)
        tuning = Tuning(measured={"fault": fault})
        save(tuning, file)
        return tuning

    def _file(self, model: Path, weights: str) -> Path:
        return self._folder / f"{model.stem[:40]}-{_key(model, weights)}.json"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def save(tuning: Tuning, file: Path) -> None:
    """As a whole or not at all. Raises OSError."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(tuning), default=str, indent=1))
    part.replace(file)


def _key(model: Path, weights: str) -> str:
    """Changes with the model's bytes, the processor, the cores that may be used, the build of llama.cpp, and for which
    weights the engine computes products itself."""
    build = [version("llama-cpp-python"), own_products.types]
    facts = [VERSION, weights, digest(model), _processor(), usable_cores(), *build]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    # Its name, and what it can compute.
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
