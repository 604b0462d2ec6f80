"""One measurement of a model with one way to run it, in a process of its own: threads that wait otherwise need another
process, and a setting that llama.cpp does not survive ends nothing else.

    python -m deployments.model.engine.probe '{"model": "...", "options": {...}, "competitor": false, "long": false}'

Prints JSON: {"prefill": seconds a token, "decode": {"<rows>": seconds a step}}; with "long" only {"prefill"}, that of a
prompt that needs several batches.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import open_context
from deployments.model.engine.errors import EngineError
from deployments.model.engine.huge_pages import huge_pages
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import EngineOptions

ROWS = (1, 8, 16)
PROMPT_TOKENS, ANSWER_TOKENS = 60, 64
STEPS = {1: 16, 8: 8, 16: 8}
PREFILLS, PREFILL_TOKENS = 3, 240
LONG_PREFILLS, LONG_TOKENS = 2, 1500
PROBE_SECONDS = 120.0
# What the other processes of a busy service take: 40 % of a core, in slices of a millisecond.
COMPETITOR = (
    "import time\nwhile True:\n    end = time.perf_counter() + 0.001\n"
    "    while time.perf_counter() < end: pass\n    time.sleep(0.0015)"
)


class Speed:
    """What a probe measured."""

    def __init__(self, prefill: float, decode: dict[int, float]) -> None:
        self.prefill = prefill
        self.decode = decode

    def tokens_per_second(self, concurrency: int) -> float:
        """Output tokens a second of so many requests at once, each of 60 tokens of prompt and 64 of answer."""
        seconds = concurrency * PROMPT_TOKENS * self.prefill + ANSWER_TOKENS * self.decode[concurrency]
        return concurrency * ANSWER_TOKENS / seconds


def probe(model: Path, options: dict[str, Any], wait_policy: str, competitor: bool = False) -> Speed | None:
    """Runs this module as a process; None when the model does not run that way here."""
    found = _run({"model": str(model), "options": options, "competitor": competitor, "long": False}, wait_policy)
    return found and Speed(found["prefill"], {int(rows): seconds for rows, seconds in found["decode"].items()})


def probe_long_prompt(model: Path, options: dict[str, Any], wait_policy: str) -> float | None:
    """Seconds a token of a prompt that is longer than any batch worth trying; None when it does not run that way."""
    sizes = {"max_slots": 1, "max_sequence_tokens": LONG_TOKENS}
    found = _run({"model": str(model), "options": options | sizes, "competitor": False, "long": True}, wait_policy)
    return found and found["prefill"]


def _run(task: dict[str, Any], wait_policy: str) -> Any:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if wait_policy != "default":
        environment["OMP_WAIT_POLICY"] = wait_policy
    try:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, json.dumps(task)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError:
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _open(path: Path, options: EngineOptions) -> ctypes.c_void_p:
    with huge_pages(options.huge_pages):
        model = load_model(path, options.n_gpu_layers, mapped=not options.huge_pages)
        return open_context(model, options, options.max_sequence_tokens)


def _measure_long(path: Path, options: EngineOptions) -> dict[str, Any]:
    context = _open(path, options)
    batch = Batch(options.n_batch, 1)
    taken: list[float] = []
    for _ in range(LONG_PREFILLS):
        llama.llama_memory_clear(llama.llama_get_memory(context), False)
        began = time.perf_counter()
        for start in range(0, LONG_TOKENS, options.n_batch):
            batch.clear()
            batch.add(0, range(10 + start, 10 + min(LONG_TOKENS, start + options.n_batch)), start, 1)
            if llama.llama_decode(context, batch.struct) != 0:
                raise EngineError("a batch failed")
            llama.llama_synchronize(context)
        taken.append(time.perf_counter() - began)
    return {"prefill": min(taken) / LONG_TOKENS}


def _measure(path: Path, options: EngineOptions) -> dict[str, Any]:
    context = _open(path, options)
    batch = Batch(options.n_batch, options.max_slots)
    memory = llama.llama_get_memory(context)

    def run() -> None:
        if llama.llama_decode(context, batch.struct) != 0:
            raise EngineError("a step failed")
        llama.llama_synchronize(context)

    def seconds(times: int, prepare: Callable[[int], None]) -> float:
        taken: list[float] = []
        for time_number in range(times):
            prepare(time_number)
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
        return median(taken)

    def prompt(_: int) -> None:
        llama.llama_memory_clear(memory, False)
        batch.clear()
        batch.add(0, range(10, 10 + PREFILL_TOKENS), 0, 1)

    prefill = seconds(PREFILLS, prompt) / PREFILL_TOKENS
    llama.llama_memory_clear(memory, False)
    for slot in range(max(ROWS)):
        batch.clear()
        batch.add(slot, range(10, 10 + PROMPT_TOKENS), 0, 1)
        run()
    decode: dict[int, float] = {}
    for rows in ROWS:

        def step(number: int, rows: int = rows) -> None:
            batch.clear()
            for slot in range(rows):
                batch.add(slot, [20 + number], PROMPT_TOKENS + number, 1)

        for slot in range(rows):
            llama.llama_memory_seq_rm(memory, slot, PROMPT_TOKENS, -1)
        decode[rows] = seconds(STEPS[rows], step)
    return {"prefill": prefill, "decode": decode}


def main() -> None:
    """The process's side."""
    task = json.loads(sys.argv[1])
    competitor = subprocess.Popen([sys.executable, "-c", COMPETITOR]) if task["competitor"] else None
    try:
        measure = _measure_long if task["long"] else _measure
        print(json.dumps(measure(Path(task["model"]), EngineOptions(**task["options"]))))
    finally:
        if competitor:
            competitor.kill()


if __name__ == "__main__":
    main()
