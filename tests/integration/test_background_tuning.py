"""The measurement goes on while nobody uses the engine, stands still when somebody does, and its result takes over."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from deployments.config import bundled_model_file
from deployments.model import background_tuning
from deployments.model.background_tuning import BackgroundTuning, Progress
from deployments.model.engine import Engine, EngineOptions
from deployments.model.live_engine import LiveEngine

# Counts into a file, by a child of its own, as autotune's probes are; reports, and ends when it is told to.
MEASUREMENT = """
import pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c",
    "import pathlib, sys, time\\nn = 0\\nwhile True:\\n"
    "    n += 1; pathlib.Path(sys.argv[1]).write_text(str(n)); time.sleep(0.01)",
    str(folder / "count")])
print('{"done": 1, "of": 4, "step": "n_threads 1", "seconds_left": 90.0}', flush=True)
while not (folder / "end").exists():
    time.sleep(0.01)
child.kill()
sys.exit((folder / "end").read_text() or 0)
"""


@pytest.fixture
async def live(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveEngine]:
    # The machine that runs the tests need not be quiet.
    monkeypatch.setattr(background_tuning, "QUIET_CORES", 1000.0)
    monkeypatch.setattr(background_tuning, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(background_tuning, "LOOK_SECONDS", 0.05)
    live = LiveEngine(Engine(bundled_model_file(), EngineOptions(max_sequence_tokens=128, max_slots=1)))
    yield live
    live.current.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 another process tells nobody
            await asyncio.sleep(0.01)


def count(folder: Path) -> int:
    return int((folder / "count").read_text() or 0) if (folder / "count").exists() else 0


def begin(live: LiveEngine, folder: Path, adopted: list[str]) -> BackgroundTuning:
    async def adopt() -> tuple[Progress, bool]:
        adopted.append("adopted")
        return Progress("adopted"), True

    return BackgroundTuning("default", live, [sys.executable, "-c", MEASUREMENT, str(folder)], adopt)


async def test_it_stands_still_while_the_engine_is_used_and_goes_on_afterwards(
    live: LiveEngine, tmp_path: Path
) -> None:
    tuning = begin(live, tmp_path, [])
    running = asyncio.create_task(tuning.run())
    await until(lambda: count(tmp_path) > 3 and tuning.progress.done == 1)
    assert tuning.progress.state == "measuring"
    assert (tuning.progress.of, tuning.progress.step, tuning.progress.seconds_left) == (4, "n_threads 1", 90.0)
    with live.use():
        assert tuning.progress.state == "paused"
        group = [p for p in psutil.Process().children(recursive=True) if str(tmp_path) in " ".join(p.cmdline())]
        await until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in group))
        stopped_at = count(tmp_path)
        await asyncio.sleep(0.5)
        assert count(tmp_path) == stopped_at
    await until(lambda: count(tmp_path) > stopped_at)
    running.cancel()
    await asyncio.wait([running])
    await until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in group))


async def test_its_result_is_adopted_once_nobody_uses_the_engine(live: LiveEngine, tmp_path: Path) -> None:
    adopted: list[str] = []
    tuning = begin(live, tmp_path, adopted)
    running = asyncio.create_task(tuning.run())
    await until(lambda: count(tmp_path) > 0)
    with live.use():
        pass
    await until(lambda: tuning.progress.state == "measuring")
    (tmp_path / "end").touch()
    await until(lambda: tuning.progress.state == "adopting")
    with live.use():
        await asyncio.sleep(0.5)
        assert adopted == []
    await running
    assert tuning.progress.state == "adopted"


async def test_a_measurement_that_fails_changes_nothing_and_says_why(live: LiveEngine, tmp_path: Path) -> None:
    adopted: list[str] = []
    tuning = begin(live, tmp_path, adopted)
    (tmp_path / "end").write_text("no memory for it")
    running = asyncio.create_task(tuning.run())
    await until(lambda: tuning.progress.state == "failed")
    assert tuning.progress.detail == "no memory for it"
    assert adopted == []
    running.cancel()
