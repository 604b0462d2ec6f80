"""From the configuration to a running engine: a way to run the model that was verified on this machine, the settings
measured on it, and sizes that fit."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.config import Llm, Model
from deployments.messages import ModelDescription
from deployments.model.crash_log import CrashLog, conclusive
from deployments.model.engine import (
    Engine,
    EngineError,
    EngineOptions,
    ModelShape,
    Tuning,
    Tunings,
    backend,
    choose_sizes,
    detect_hardware,
)
from deployments.model.engine.bindings import llama
from deployments.model.engine.model_file import check_magic
from deployments.model.engine.verification.answers import answer_prompts, fault_of
from deployments.model.engine.verification.checker import Task
from deployments.model.engine.verification.run_config import RunConfig
from deployments.model.engine.verification.verifier import Candidate, Verified, Verifier

logger = logging.getLogger(__name__)

# Of the prompts that a way to run was verified by, what a replica answers itself before it is ready: less than a second
# of a small model's time.
OWN_PROMPTS, OWN_TOKENS = 2, 4

Say = Callable[[str], None]


class WrongAnswers(EngineError):
    """The engine does not compute here what it computed in the process that verified it."""


@dataclass(frozen=True)
class LoadedModel:
    """An engine and how it came to be what it is. `tuning` is what was measured, and used; None: nothing yet."""

    engine: Engine
    model: Model
    tuning: Tuning | None
    verified: Verified

    def describe(self, model_id: str, engine: Engine) -> ModelDescription:
        """For the operator. `engine` is the one in use, which may have taken the place of the one loaded."""
        options = engine.options
        tuning = self.tuning or Tuning()
        return ModelDescription(
            model_id=model_id,
            name=engine.model_name,
            file=str(self.model.file()),
            weights=tuning.format,
            max_sequence_tokens=engine.max_sequence_tokens,
            max_slots=options.max_slots,
            n_threads=options.n_threads,
            n_gpu_layers=options.n_gpu_layers,
            hardware=dataclasses.asdict(detect_hardware()),
            measured=tuning.measured,
            engine=dataclasses.asdict(engine.stats()),
            cpu_variant=backend.loaded_variant(),
            own_kernels=backend.own_products.types,
            verified=self.verified.describe(),
        )


class Loader:
    """Loads one model on this machine. `session` names the present start of the service here: within it, what has
    failed is not tried again. `say` is told each step that takes a while."""

    def __init__(
        self, llm: Llm, model: Model, session: str, crashes: CrashLog | None = None, say: Say = logger.info
    ) -> None:
        self._llm = llm
        self._model = model
        self._file = model.file()
        self._crashes = crashes
        self._say = say
        self._verifier = Verifier(llm.tunings(), session)

    def load(self) -> LoadedModel:
        """An engine that has itself answered as the model's reference does. Raises ModelFileError, NothingRuns,
        EngineError."""
        check_magic(self._file)
        crashed = conclusive(self._crashes.collect() if self._crashes else [])
        given = self.candidate(None)
        for (config, tuned), reason in crashed.items():
            if not tuned:
                self._verifier.reject(given, config, reason)
        verified = self._verifier.obtain(given, self._say)
        if verified.config.given_up():
            logger.warning("%s runs %s: %s", self._file.name, verified.config, _reasons(verified))
        tuning = self.tunings(verified.config).find(self._file, self._model.weights)
        if tuning is not None:
            tuning = self._confirmed(tuning, verified, crashed)
        if self._crashes:
            self._crashes.begin(verified.config, tuning is not None)
        self._say("loading")
        loaded = LoadedModel(self._open(tuning, verified), self._model, tuning, verified)
        if fault := self.own_fault(loaded.engine, verified):
            loaded.engine.close()
            self._verifier.reject(self.candidate(tuning), verified.config, fault)
            raise WrongAnswers(fault)
        if self._crashes:
            self._crashes.ready()
        return loaded

    def _confirmed(
        self, tuning: Tuning, verified: Verified, crashed: Mapping[tuple[RunConfig, bool], str]
    ) -> Tuning | None:
        """The measured settings, unless the model does not run with them, too."""
        if tuning.is_fault:
            return None
        candidate, config = self.candidate(tuning), verified.config
        if reason := crashed.get((config, True)):
            self._verifier.reject(candidate, config, reason)
        try:
            self._verifier.obtain(candidate, self._say, only=config)
        except EngineError as error:
            logger.warning("%s runs without the settings measured for it: %s", self._file.name, error)
            return None
        return tuning

    def own_fault(self, engine: Engine, verified: Verified) -> str | None:
        """Why this engine, in this process, does not answer as the reference does; None: it does."""
        try:
            found = asyncio.run(answer_prompts(engine, OWN_PROMPTS, OWN_TOKENS))
        except EngineError as error:
            return str(error)
        return fault_of(found, verified.reference.answers or [])

    def candidate(self, tuning: Tuning | None) -> Candidate:
        """What is to be verified: the model as given, or as measurements would have it."""
        # Whether llama.cpp can use one is known when it is loaded, and what is loaded is chosen first.
        layers = self._model.n_gpu_layers
        may_use_gpu = layers != 0 and (layers is not None or detect_hardware().gpu is not None)
        options: dict[str, Any] = {
            "n_gpu_layers": (-1 if layers is None else layers) if may_use_gpu else 0,
            "lora": [(str(Path(adapter.path).expanduser()), adapter.scale) for adapter in self._model.lora],
        }
        given = Task(self._file, options)
        if tuning is None:
            return Candidate(given, given, may_use_gpu)
        default = EngineOptions()
        changed = dataclasses.asdict(tuning.applied(default))
        options |= {name: value for name, value in changed.items() if value != getattr(default, name)}
        return Candidate(Task(tuning.model_file(self._file), options, tuning.wait_policy), given, may_use_gpu)

    def tunings(self, config: RunConfig) -> Tunings:
        """Measurements that hold for this way to run."""
        return Tunings(self._llm.tunings(), config.choices())

    def options(self, tuning: Tuning | None, config: RunConfig) -> EngineOptions:
        """The engine's options. Loads llama.cpp."""
        options = engine_options(self._model, tuning.model_file(self._file) if tuning else self._file)
        if tuning is not None:
            options = tuning.applied(options)
        if self._model.n_threads:
            options = dataclasses.replace(options, n_threads=self._model.n_threads)
        return dataclasses.replace(options, **config.options())

    def open_tuned(self, tuning: Tuning, verified: Verified) -> Engine:
        """A second engine in this process, with what was measured meanwhile, that has answered as the reference does.
        Raises EngineError."""
        engine = Engine(tuning.model_file(self._file), self.options(tuning, verified.config))
        if fault := self.own_fault(engine, verified):
            engine.close()
            raise WrongAnswers(fault)
        return engine

    def _open(self, tuning: Tuning | None, verified: Verified) -> Engine:
        if tuning is not None:
            tuning.prepare_process()
        backend.select(verified.config.own_kernels, verified.config.cpu_variant)
        file = tuning.model_file(self._file) if tuning else self._file
        return Engine(file, self.options(tuning, verified.config))


def engine_options(model: Model, file: Path) -> EngineOptions:
    """What the configuration says of how to run a model, and for the rest what fits this machine."""
    sizes = choose_sizes(
        detect_hardware(),
        ModelShape.read(file),
        sequence_tokens=model.max_sequence_tokens,
        slots=model.max_slots,
        gpu_layers=model.n_gpu_layers,
        can_offload=llama.llama_supports_gpu_offload(),
    )
    return EngineOptions(
        max_sequence_tokens=sizes.sequence_tokens,
        max_slots=sizes.slots,
        n_batch=sizes.batch_tokens,
        n_gpu_layers=sizes.gpu_layers,
        max_queue=model.max_queue,
        prefix_cache_bytes=model.prefix_cache_bytes,
        draft_tokens=model.draft_tokens,
        lora=tuple((Path(adapter.path).expanduser(), adapter.scale) for adapter in model.lora),
    )


def _reasons(verified: Verified) -> str:
    return "; ".join(f"{fault.config}: {fault.reason}" for fault in verified.faults) or "as found before"
