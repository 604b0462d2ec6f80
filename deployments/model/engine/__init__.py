"""The batching engine. Knows neither HTTP, nor Ray, nor SQL; usable alone."""

from deployments.model.engine.engine import Engine
from deployments.model.engine.errors import (
    EngineError,
    InvalidRequest,
    ModelFileError,
    NoEmbeddings,
    PromptRefused,
    PromptTooLong,
    QueueFull,
)
from deployments.model.engine.generation import Generation
from deployments.model.engine.hardware import detect_hardware
from deployments.model.engine.model_file import check_model_file
from deployments.model.engine.request import (
    EngineOptions,
    Finish,
    FinishReason,
    GenerationRequest,
    TokenDelta,
    TokenLogprob,
)
from deployments.model.engine.sizes import ModelShape, choose_sizes
from deployments.model.engine.stats import EngineStats
from deployments.model.engine.tuning import Tuning, Tunings

__all__ = [
    "Engine",
    "EngineError",
    "EngineOptions",
    "EngineStats",
    "Finish",
    "FinishReason",
    "Generation",
    "GenerationRequest",
    "InvalidRequest",
    "ModelFileError",
    "ModelShape",
    "NoEmbeddings",
    "PromptRefused",
    "PromptTooLong",
    "QueueFull",
    "TokenDelta",
    "TokenLogprob",
    "Tuning",
    "Tunings",
    "check_model_file",
    "choose_sizes",
    "detect_hardware",
]
