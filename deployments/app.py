"""Composition: what serve_config.yaml names as import paths."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from deployments.config import ConfigError, load_settings
from deployments.gateway.deployment import GatewayDeployment
from deployments.model.deployment import ModelDeployment
from deployments.streamer.deployment import StreamerDeployment


class ModelArgs(BaseModel):
    """`args` of a model's application: which of llm.models it runs."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str


def gateway(_: dict[str, str]) -> Application:
    """REST, web page, health, metrics."""
    return GatewayDeployment.bind(load_settings())


def streamer(_: dict[str, str]) -> Application:
    """Event streams."""
    return StreamerDeployment.bind(load_settings())


def model(args: ModelArgs) -> Application:
    """One model."""
    settings = load_settings()
    if args.model not in settings.llm.models:
        names = ", ".join(sorted(settings.llm.models))
        raise ConfigError(f"there is no model {args.model!r} in llm.models ({names})")
    return ModelDeployment.bind(settings, args.model)
