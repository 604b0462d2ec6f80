"""Steps with the engine's own matrix products beside the same steps with llama.cpp's, in turns in one process:
`python -m load.products_bench`.

The weights are the bundled model's, as given (Q4_1) and in other formats. Medians, in milliseconds; the last line is
one JSON object with how many times as fast the own products make a step of so many answers at once, and a prompt.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median

from deployments.config import bundled_model_file
from deployments.model.engine import backend
from deployments.model.engine.backend import own_products
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.probe import Runner
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.weights import FORMATS, requantise

ROUNDS = 9
ROWS = (1, 2, 4, 8, 16, 32)
PROMPT_TOKENS = (64, 120, 240)
SIDES = {"own": nullcontext, "llama.cpp": own_products.switched_off}


def _runner(model: Path) -> Runner:
    options = EngineOptions(
        max_slots=max(ROWS) + 1, max_sequence_tokens=256, n_threads=usable_cores(), n_ubatch=512, huge_pages=True
    )
    return Runner(model, options)


def _measured(runner: Runner) -> dict[str, dict[str, list[float]]]:
    """Seconds, by what is measured and by side."""
    measures: dict[str, Callable[[], float]] = {f"{rows} rows": lambda n=rows: runner.decode(n) for rows in ROWS}
    measures |= {f"prompt of {n}": lambda n=n: runner.prefill(n) * n for n in PROMPT_TOKENS}
    seconds: dict[str, dict[str, list[float]]] = {name: {side: [] for side in SIDES} for name in measures}
    for number in range(ROUNDS):
        for name, measure in measures.items():
            for side in sorted(SIDES, reverse=number % 2 == 1):
                with SIDES[side]():
                    seconds[name][side].append(measure())
    return seconds


def main() -> None:
    """Prints a table for each format, then the ratios as JSON."""
    backend.load()
    if not own_products.types:
        sys.exit("products_bench: this processor runs none of the kernels: there is nothing to compare")
    with tempfile.TemporaryDirectory() as folder:
        runners = {"Q4_1": _runner(bundled_model_file())}
        for wanted in FORMATS:
            file = Path(folder) / f"{wanted.name}.gguf"
            requantise(bundled_model_file(), file, wanted, usable_cores())
            runners[wanted.name] = _runner(file)
    ratios: dict[str, dict[str, float]] = {}
    for kind, runner in runners.items():
        print(f"{kind:<16}{'llama.cpp':>10}{'own':>10}{'ratio':>8}")
        ratios[kind] = {}
        for name, found in _measured(runner).items():
            ratios[kind][name] = round(median(a / b for a, b in zip(found["llama.cpp"], found["own"], strict=True)), 2)
            times = "".join(f"{median(found[side]) * 1000:>10.1f}" for side in ("llama.cpp", "own"))
            print(f"{name:<16}{times}{ratios[kind][name]:>8.2f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
