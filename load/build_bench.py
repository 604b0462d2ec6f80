"""Two builds of llama.cpp beside each other, in turns: `python -m load.build_bench FOLDER [FOLDER]`.

A FOLDER has a build's shared objects, as llama_cpp/lib has them; the second is by default the installed one. Each round
measures both, the other one first in every second round, in processes of their own: steps of 1, 8 and 16 answers, and a
prompt. Prints medians in milliseconds, and as its last line one JSON object with how many times as fast the second is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from deployments.config import bundled_model_file
from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.choices import Choices
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.prober import Prober, Speed, Way

ROUNDS = 9
ROOM_BYTES = 1 << 30


def _measured(prober: Prober, folder: Path, way: Way) -> dict[str, float]:
    # The process inherits it when it begins.
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    speed: Speed = prober.measure(way)
    return {f"{rows} rows": seconds for rows, seconds in speed.decode.items()} | {"prompt, a token": speed.prefill}


def main() -> None:
    """Prints the table and the ratios."""
    package = find_spec("llama_cpp")
    installed = Path(package.origin).parent / "lib" if package and package.origin else Path()
    parser = argparse.ArgumentParser(prog="python -m load.build_bench", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    first, second, *_ = (*arguments.folders, installed)
    way = Way(bundled_model_file(), {"n_threads": usable_cores()})
    sides = {folder: Prober(AwakeClock(), Choices(), ROOM_BYTES) for folder in (first, second)}
    found: dict[Path, list[dict[str, float]]] = {folder: [] for folder in sides}
    for number in range(arguments.rounds):
        for folder in sorted(sides, reverse=number % 2 == 1):
            found[folder].append(_measured(sides[folder], folder, way))
    for prober in sides.values():
        prober.close()
    ratios: dict[str, float] = {}
    print(f"{platform.processor() or platform.machine()}, {usable_cores()} cores, {arguments.rounds} rounds")
    print(f"{'':<18}{'first':>10}{'second':>10}{'ratio':>8}")
    for name in found[first][0]:
        pairs = [(one[name], other[name]) for one, other in zip(found[first], found[second], strict=True)]
        ratios[name] = round(median(one / other for one, other in pairs), 3)
        ones, others = (median(side) * 1000 for side in zip(*pairs, strict=True))
        print(f"{name:<18}{ones:>10.2f}{others:>10.2f}{ratios[name]:>8.3f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
