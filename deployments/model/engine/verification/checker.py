"""Answers the prompts in a process of its own, which may crash: nothing else ends with it.

    python -m deployments.model.engine.verification.checker '{"model": "...", "config": {...}, "options": {...}}'

It prints two lines of JSON: what there is to choose from, before the model is loaded; then the answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.model.engine import backend
from deployments.model.engine.backend import BackendError
from deployments.model.engine.engine import Engine
from deployments.model.engine.errors import EngineError, ModelFileError
from deployments.model.engine.parent_death import die_with_parent
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.verification.answers import Answer, answer_prompts, from_json, to_json
from deployments.model.engine.verification.run_config import Capabilities, RunConfig

SIZES: dict[str, Any] = {"max_slots": 4, "max_sequence_tokens": 256, "prefix_cache_bytes": 0}
# A start of Python and of llama.cpp, and reading the file at 50 MB/s; then a second for each of some 150 tokens.
BASE_SECONDS, BYTES_PER_SECOND = 180.0, 50e6
BAD_FILE = 3


@dataclass(frozen=True)
class Checked:
    """What came of a check: answers, or the fault that there are none."""

    capabilities: Capabilities | None
    answers: list[Answer] | None
    fault: str = ""


@dataclass(frozen=True)
class Task:
    """A model's file and how to run it, as the engine's options have it, and OpenMP's wait policy."""

    model: Path
    options: Mapping[str, Any]
    wait_policy: str = "default"


def check(task: Task, config: RunConfig) -> Checked:
    """Runs the model that way in another process. Raises ModelFileError when its file is at fault."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if task.wait_policy != "default":
        environment["OMP_WAIT_POLICY"] = task.wait_policy
    parts = {"model": str(task.model), "options": dict(task.options), "config": config.to_json()}
    limit = BASE_SECONDS + task.model.stat().st_size / BYTES_PER_SECOND
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(parts, default=str)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Checked(None, None, f"it did not answer within {limit:.0f} s")
    return _outcome(process.returncode, out, err)


def _outcome(status: int, out: str, err: str) -> Checked:
    lines = [json.loads(line) for line in out.splitlines() if line.endswith(("}", "]"))]
    found = Capabilities(lines[0]["own_kernels"], tuple(lines[0]["cpu_variants"])) if lines else None
    last = (err.strip().splitlines() or ["it gave no reason"])[-1]
    if status == BAD_FILE:
        raise ModelFileError(last)
    if status < 0:
        return Checked(found, None, f"it was ended by {signal.Signals(-status).name}")
    if status or len(lines) < 2:
        return Checked(found, None, last)
    return Checked(found, from_json(lines[1]))


def main() -> None:
    """The process's side."""
    die_with_parent()
    task = json.loads(sys.argv[1])
    config = RunConfig(**task["config"])
    try:
        backend.select(config.own_kernels, config.cpu_variant)
        backend.load()
        found = {"own_kernels": bool(backend.own_products.types), "cpu_variants": backend.variants()}
        print(json.dumps(found), flush=True)
        lora = tuple((Path(path), scale) for path, scale in task["options"].pop("lora", ()))
        options = EngineOptions(**task["options"] | SIZES | config.options(), lora=lora)
        with closing(Engine(Path(task["model"]), options)) as engine:
            print(json.dumps(to_json(asyncio.run(answer_prompts(engine)))), flush=True)
    except ModelFileError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_FILE)
    except (BackendError, EngineError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
