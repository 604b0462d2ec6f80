"""The engine's thread: takes requests in, steps while there is work, hands over what is ready."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from deployments.model.engine.errors import EngineError, QueueFull
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.sequence import Sequence
from deployments.model.engine.stepper import Item, Stepper

T = TypeVar("T")

# So short a rest is none: between two short answers neither other processes are looked at nor the cache is checked.
SHORT_REST_SECONDS = 0.02
# After a rest of so long the cache is checked.
CHECK_AFTER_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Worker:
    """Runs a stepper, which nobody else may touch while the thread lives. Public methods are for any thread."""

    def __init__(self, stepper: Stepper, options: EngineOptions) -> None:
        self._stepper = stepper
        self._options = options
        self._scheduler = stepper.scheduler
        self._inbox: deque[Sequence] = deque()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that have no slot."""
        return len(self._inbox) + len(self._scheduler.waiting)

    def submit(self, sequence: Sequence) -> None:
        """Takes a sequence in. Raises QueueFull, EngineError when closed."""
        with self._wake:
            self._refuse_when_closed()
            if (waiting := self.waiting) >= self._options.max_queue:
                turns = waiting / self._options.max_slots
                raise QueueFull(waiting, max(1.0, self._stepper.answer_seconds * turns))
            self._inbox.append(sequence)
            self._wake.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Runs `function` on the engine's thread, between two steps. Raises EngineError when closed."""
        future: Future[T] = Future()
        with self._wake:
            self._refuse_when_closed()
            self._calls.append((future, function))
            self._wake.notify()
        return future

    @property
    def alive(self) -> bool:
        """False when the thread has died of an error that it did not expect."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends all generations with an error, and the thread. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise EngineError("the engine is closed")

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            # Whatever ended the thread: nobody may wait for it for ever, nor begin to.
            with self._wake:
                self._closing = True
            self._answer_calls()
            self._take_in()
            scheduler = self._scheduler
            self._stepper.fail([*scheduler.running, *scheduler.waiting], "the engine is shutting down")
            _deliver(self._stepper.take_items())

    def _serve(self) -> None:
        stepper, scheduler = self._stepper, self._scheduler
        while self._wait_for_work():
            self._answer_calls()
            try:
                self._take_in()
                stepper.step()
            except Exception:
                # Nobody may wait for ever on a step that failed: all that run end, and the engine goes on.
                logger.exception("engine step failed")
                stepper.counters.failed_steps_total += 1
                stepper.fail([*scheduler.running], "the engine failed while it wrote this answer")
            _deliver(stepper.take_items())

    def _wait_for_work(self) -> bool:
        if not self._work_comes(SHORT_REST_SECONDS):
            self._stepper.rest()
            if not self._work_comes(CHECK_AFTER_SECONDS):
                self._self_check()
                self._work_comes(None)
            self._stepper.resume()
        return not self._closing

    def _work_comes(self, within_seconds: float | None) -> bool:
        """Whether there is something to do, be it to close, now or within some time; None: whenever there is."""
        with self._wake:
            return self._wake.wait_for(lambda: self._closing or self._has_work(), within_seconds)

    def _has_work(self) -> bool:
        return bool(self._inbox or self._calls or self._scheduler.waiting or self._scheduler.running)

    def _take_in(self) -> None:
        while self._inbox:
            self._scheduler.waiting.append(self._inbox.popleft())

    def _answer_calls(self) -> None:
        while self._calls:
            future, function = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue  # who asked does not wait any more
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 it is the caller's
                future.set_exception(error)

    def _self_check(self) -> None:
        try:
            self._stepper.cache.check()
        except (AssertionError, KeyError):
            logger.exception("the prefix cache is inconsistent and is emptied")
            self._stepper.cache.clear()


def _deliver(items: list[Item]) -> None:
    """Hands a step's items over: one wake-up for each event loop, not one for each token."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Item]] = defaultdict(list)
    for item in items:
        by_loop[item[0].loop].append(item)
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, batch)
        except RuntimeError:
            continue  # the caller's loop is closed: nobody reads any more


def _put_all(items: list[Item]) -> None:
    for sequence, item in items:
        sequence.outbox.put_nowait(item)
