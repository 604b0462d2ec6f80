"""What the background measurement needs of a replica, and what becomes of its result."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from deployments.config import Llm, Model
from deployments.messages import ModelDescription
from deployments.model.background_tuning import BackgroundTuning, Progress
from deployments.model.engine import EngineError, Tuning, detect_hardware
from deployments.model.live_engine import LiveEngine
from deployments.model.loading import LoadedModel, Loader

logger = logging.getLogger(__name__)

# Beside the weights of a second engine: its buffers, and what the machine does otherwise.
SPARE_BYTES = 500 << 20


class TuningAdoption:
    """Measures a replica's model if that has not been done on this machine, and changes to what was found."""

    def __init__(
        self, model_id: str, llm: Llm, model: Model, loader: Loader, loaded: LoadedModel, live: LiveEngine
    ) -> None:
        self._model_id = model_id
        self._model = model
        self._loader = loader
        self._loaded = loaded
        self._live = live
        self._tunings = loader.tunings(loaded.verified.config)
        self._background: BackgroundTuning | None = None
        if llm.tuning == "background" and self._is_needed():
            command = self._tunings.command(model.file(), model.weights)
            self._background = BackgroundTuning(model_id, live, command, self._adopt)

    def _is_needed(self) -> bool:
        if self._loaded.engine.options.n_gpu_layers != 0:
            return False
        return self._loaded.tuning is None or self._loaded.tuning.is_provisional

    async def run(self) -> None:
        """Until cancelled."""
        if self._background:
            await self._background.run()
        await asyncio.Event().wait()

    def close(self) -> None:
        """Ends the measurement, if one is going on."""
        if self._background:
            self._background.close()

    def describe(self) -> ModelDescription:
        """The replica's model, for the operator."""
        if self._background:
            progress = self._background.progress
        else:
            progress = Progress("measured" if self._loaded.tuning else "off")
        described = self._loaded.describe(self._model_id, self._live.current)
        return dataclasses.replace(described, tuning=dataclasses.asdict(progress))

    async def _adopt(self) -> tuple[Progress, bool]:
        """Changes to the settings and weights that were found, unless that takes another process, or more memory than
        there is: then the next start does. Says, too, whether that is final."""
        tuning = self._tunings.find(self._model.file(), self._model.weights)
        if tuning is None or tuning.is_fault:
            reason = tuning.measured["fault"] if tuning else "the measurement left no result"
            return Progress("failed", detail=reason), False
        return await self._change_to(tuning), not tuning.is_provisional

    async def _change_to(self, tuning: Tuning) -> Progress:
        file = tuning.model_file(self._model.file())
        if file.stat().st_size + SPARE_BYTES > detect_hardware().spendable_bytes:
            return Progress("next start", detail="a second engine does not fit into memory")
        try:
            engine = await asyncio.to_thread(self._loader.open_tuned, tuning, self._loaded.verified)
        except EngineError as error:
            return Progress("failed", detail=str(error))
        self._live.replace(engine)
        self._loaded = dataclasses.replace(self._loaded, engine=engine, tuning=tuning)
        if tuning.wait_policy != "default":
            return Progress("adopted", detail=f"threads wait {tuning.wait_policy} from the next start on")
        return Progress("adopted")
