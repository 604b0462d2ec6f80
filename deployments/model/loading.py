"""From the configuration to a running engine: measured settings, sizes that fit the machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from deployments.config import Llm, Model
from deployments.messages import ModelDescription
from deployments.model.engine import Engine, EngineOptions, ModelShape, Tuning, Tunings, choose_sizes, detect_hardware
from deployments.model.engine.bindings import llama


@dataclass(frozen=True)
class LoadedModel:
    """An engine and how it came to be what it is."""

    engine: Engine
    tuning: Tuning
    model: Model

    def describe(self, model_id: str) -> ModelDescription:
        """For the operator."""
        options = self.engine.options
        return ModelDescription(
            model_id=model_id,
            name=self.engine.model_name,
            file=str(self.model.file()),
            weights=self.tuning.format,
            max_sequence_tokens=self.engine.max_sequence_tokens,
            max_slots=options.max_slots,
            n_threads=options.n_threads,
            n_gpu_layers=options.n_gpu_layers,
            hardware=dataclasses.asdict(detect_hardware()),
            measured=self.tuning.measured,
            engine=dataclasses.asdict(self.engine.stats()),
        )


def needs_measuring(llm: Llm, model: Model) -> bool:
    """Whether `measure` would take its time."""
    return not _uses_gpu(model) and Tunings(llm.tunings()).find(model.file(), model.weights) is None


def measure(llm: Llm, model: Model) -> Tuning:
    """How to run a model on this machine's processors, measured now or before. On a GPU, llama.cpp's defaults."""
    return Tuning() if _uses_gpu(model) else Tunings(llm.tunings()).obtain(model.file(), model.weights)


def _uses_gpu(model: Model) -> bool:
    if model.n_gpu_layers is None:
        # In this order: asking llama.cpp loads it, and then it is too late to choose how its threads wait.
        return detect_hardware().gpu is not None and llama.llama_supports_gpu_offload()
    return model.n_gpu_layers != 0


def load(llm: Llm, model: Model) -> LoadedModel:
    """Measures the model if it has not been on this machine, and loads it. Raises ModelFileError, EngineError."""
    file = model.file()
    tuning = measure(llm, model)
    tuning.prepare_process()
    options = tuning.applied(engine_options(model, tuning.model_file(file)))
    if model.n_threads:
        options = dataclasses.replace(options, n_threads=model.n_threads)
    return LoadedModel(Engine(tuning.model_file(file), options), tuning, model)


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
