"""A model whose replica crashes at every prompt: its machine code is broken while it runs."""

from __future__ import annotations

import asyncio
import signal
import time

from deployments.model.engine.backend import variants
from tests.chaos.moves import PAUSE_SECONDS, Stage, Struck
from tests.chaos.service import OneMachine, find_one, send
from tests.support.broken_library import ILLEGAL, cpu_libraries, overwrite


async def broken_model(stage: Stage) -> Struck:
    """Writes an illegal instruction into every CPU variant but the plainest. The replica crashes at its next prompt,
    and so would each that is started in its place. Ten seconds after people have answers again the code is mended, and
    the replica killed."""
    service = stage.service
    assert isinstance(service, OneMachine)
    assert service.libraries is not None
    broken = [library for library in cpu_libraries(service.libraries) if variants()[-1] not in library.name]
    assert broken, "llama.cpp was compiled without CPU variants"
    since = time.monotonic()
    before = {library: overwrite(library, ILLEGAL) for library in broken}

    async def recovery() -> float:
        seconds = await stage.probe.seconds(since)
        await asyncio.sleep(PAUSE_SECONDS)
        for library, code in before.items():
            overwrite(library, code)
        send(await find_one(service, "model", stage.rng), signal.SIGKILL)
        return seconds

    return Struck(since, recovery=recovery())
