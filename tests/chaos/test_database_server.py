"""The embedded database server comes back from what a crash of the whole machine leaves."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from db.embedded import EmbeddedPostgres


@pytest.fixture
def folder() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="rgpt-pg-"))
    base.chmod(0o755)
    yield base / "postgres"
    EmbeddedPostgres(base / "postgres").stop()
    shutil.rmtree(base)


def crash(folder: Path) -> None:
    """All of the server at once."""
    postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().split("\n")[0]))
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, 10)


def test_it_starts_though_its_old_process_number_is_somebody_elses_now(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    crash(folder)
    for lock in (folder / "postmaster.pid", *folder.glob(".s.PGSQL.*.lock")):
        lines = lock.read_text().split("\n")
        lock.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert server.was_started()
    assert not server.is_running()
    EmbeddedPostgres(folder).start()
    assert server.is_running()


def test_it_is_adopted_while_it_runs(folder: Path) -> None:
    first = EmbeddedPostgres(folder).start()
    pid = (folder / "postmaster.pid").read_text().split("\n")[0]
    assert EmbeddedPostgres(folder).start() == first
    assert (folder / "postmaster.pid").read_text().split("\n")[0] == pid
