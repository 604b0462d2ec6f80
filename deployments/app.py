"""Composition: what serve_config.yaml names as import paths."""

from __future__ import annotations

from ray.serve import Application

from deployments.config import ConfigError, load_settings
from deployments.gateway.deployment import GatewayDeployment
from deployments.model.deployment import ModelDeployment
from deployments.model.entry import EntryDeployment
from deployments.streamer.deployment import StreamerDeployment


def gateway(_: dict[str, str]) -> Application:
    """REST, web page, health, metrics."""
    return GatewayDeployment.bind(load_settings())


def streamer(_: dict[str, str]) -> Application:
    """Event streams."""
    return StreamerDeployment.bind(load_settings())


def model(args: dict[str, str]) -> Application:
    """One model; `args` is {"model": its id in llm.models}."""
    settings = load_settings()
    model_id = args.get("model", "")
    if model_id not in settings.llm.models:
        names = ", ".join(sorted(settings.llm.models))
        raise ConfigError(f"args.model: there is no model {model_id!r} in llm.models ({names})")
    return EntryDeployment.bind(ModelDeployment.bind(settings, model_id))
