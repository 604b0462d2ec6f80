"""Lines of a Ray session's files on the way to the standard error of `rustygpt serve`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.observability import follower
from deployments.observability.follower import KEPT_BYTES, LOGS, Follower
from deployments.observability.session_line import SessionLines

OURS = b'2026-11-28T00:00:00Z [error    ] a request failed\nTraceback (most recent call last):\n  File "a", line 1\n'
SIGNAL = b"*** SIGABRT received at time=1 on cpu 1 ***\nFatal Python error: Aborted\n"
DEATH = b"GGML_ASSERT(n > 0) failed\n" + SIGNAL
WARNING = b"WARNING 2026-11-28 00:00:00,123 controller 7 -- "
ERROR = b"ERROR 2026-11-28 00:00:00,123 controller 7 -- "


class Session:
    """The folder of a session, with a file for each process, and what a follower has passed on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passed = b""

    def file(self, pid: int) -> Path:
        return self.folder / LOGS / f"worker-0a1b-01000000-{pid}.err"

    def write(self, pid: int, text: bytes) -> None:
        self.file(pid).parent.mkdir(parents=True, exist_ok=True)
        with self.file(pid).open("ab", buffering=0) as file:
            file.write(text)

    def take(self, text: bytes) -> None:
        self.passed += text

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While it is open."""
        follower = self.follower()
        follower.start()
        yield
        follower.stop()

    def follower(self, *, as_json: bool = False, is_verbose: bool = False) -> Follower:
        return Follower(self.folder, SessionLines(as_json=as_json, is_verbose=is_verbose), self.take)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.passed
            time.sleep(0.01)

    def all_of(self, text: bytes, **options: bool) -> bytes:
        """What becomes of all that one process writes."""
        self.write(1, text)
        follower = self.follower(**options)
        follower.start()
        follower.stop()
        return self.passed


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


@pytest.fixture
def followed(session: Session) -> Iterator[Session]:
    with session.followed():
        yield session


def test_lines_of_processes_that_start_later_arrive(followed: Session) -> None:
    followed.write(1, OURS)
    followed.until(lambda: followed.passed == OURS)
    followed.write(2, DEATH)
    followed.write(1, OURS)
    followed.until(lambda: len(followed.passed) == len(OURS + DEATH + OURS))
    assert followed.passed in (OURS + DEATH + OURS, OURS + OURS + DEATH)


def test_line_arrives_whole_however_it_is_written(followed: Session) -> None:
    followed.write(1, b"half of ")
    followed.write(1, b"a line\n")
    followed.until(lambda: followed.passed == b"half of a line\n")


def test_last_words_without_an_end_arrive(followed: Session) -> None:
    followed.write(1, b"terminate called")
    followed.until(lambda: followed.passed == b"terminate called\n")


def test_all_that_was_written_has_arrived_when_it_stops(session: Session) -> None:
    text = b"".join(b"line %d\n" % number for number in range(100_000)) + b"the last"
    assert session.all_of(text) == text + b"\n"


def test_lines_are_not_read_again(session: Session) -> None:
    with session.followed():
        for number in range(20):
            session.write(1, b"%d\n" % number)
            session.until(lambda number=number: session.passed.endswith(b"%d\n" % number))
    assert session.passed == b"".join(b"%d\n" % number for number in range(20))


def test_file_that_is_removed_does_not_end_it(followed: Session) -> None:
    followed.write(1, OURS)
    followed.until(lambda: followed.passed == OURS)
    followed.file(1).unlink()
    followed.write(2, DEATH)
    followed.until(lambda: followed.passed == OURS + DEATH)


def test_file_whose_process_is_gone_is_not_looked_at(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    monkeypatch.setattr(follower, "LIFE_SECONDS", 0.0)
    looked_at: Counter[str] = Counter()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looked_at.update([str(path)]) or stat(path, **options))
    with session.followed():
        session.write(process.pid, DEATH)
        session.write(os.getpid(), OURS)
        session.until(lambda: len(session.passed) == len(DEATH + OURS))
        gone, alive = str(session.file(process.pid)), str(session.file(os.getpid()))
        session.until(lambda: looked_at[alive] > looked_at[gone] + 5)
        before = looked_at[gone], looked_at[alive]
        session.until(lambda: looked_at[alive] > before[1] + 5)
        assert looked_at[gone] == before[0]


def test_what_was_passed_on_takes_no_room(followed: Session) -> None:
    text = b"x" * 99 + b"\n"
    count = 2 * KEPT_BYTES // len(text)
    followed.write(1, text * count)
    followed.until(lambda: len(followed.passed) == len(text) * count)
    followed.until(lambda: os.stat(followed.file(1)).st_blocks * 512 < KEPT_BYTES)
    followed.write(1, OURS)
    followed.until(lambda: followed.passed.endswith(OURS))


def test_remarks_of_ray_are_left_out(session: Session) -> None:
    noise = b":job_id:01000000\n:actor_name:ServeReplica:gateway:Gateway\n:task_name:f\n"
    remark = b"[2026-11-28 00:11:06,094 E 8486 8486] logging.cc:474: *** SIGABRT received\n"
    fatal = b"[2026-11-28 00:11:06,094 C 8486 8486] task.cc:1: Check failed: x\n"
    assert session.all_of(noise + OURS + remark + DEATH + fatal) == OURS + DEATH + fatal


def test_serve_is_quiet_but_for_errors_and_losses(session: Session) -> None:
    slow = WARNING + b"'Model' has 1 replicas that take long.\nThis may be caused by a slow __init__.\n"
    lost = WARNING + b"Actor for Replica(id='a') crashed, marking it unhealthy immediately.\n"
    failed = ERROR + b"Exception in Replica(id='a'), the replica will be stopped.\n"
    traceback = b"Traceback (most recent call last):\nValueError: what somebody said\n"
    assert session.all_of(slow + OURS + lost + failed + traceback + SIGNAL) == OURS + lost + failed + SIGNAL


def test_serve_is_told_in_full_on_request(session: Session) -> None:
    text = WARNING + b"'Model' has 1 replicas that take long.\nThis may be caused by a slow __init__.\n"
    assert session.all_of(text, is_verbose=True) == text


def test_as_json_every_line_is_one_object(session: Session) -> None:
    ours = b'{"event": "a request failed", "exception": "Traceback\\n  File"}\n'
    mark = b":actor_name:ServeReplica:model-default:Model\n"
    broken = b"{ no object\n"
    passed = session.all_of(mark + ours + broken + DEATH + ERROR + b"failed\n" + ours, as_json=True)
    lines = passed.splitlines(keepends=True)
    assert [lines[0], lines[-1]] == [ours, ours]
    death, error = (json.loads(line) for line in lines[1:-1])
    assert death["event"] == (broken + DEATH).decode().removesuffix("\n")
    assert (death["process"], death["pid"], death["level"]) == ("Model", 1, "error")
    assert error["event"].endswith("-- failed")
