"""What `rustygpt serve` deploys."""

from __future__ import annotations

from deployments.config import Llm, Model, Server, Settings
from deployments.local_cluster import serve_config


def applications(settings: Settings) -> dict[str, dict[str, object]]:
    config = serve_config(settings)
    assert config["http_options"] == {"host": "127.0.0.1", "port": settings.server.port}
    return {application["name"]: application for application in config["applications"]}


def test_every_configured_model_gets_an_application() -> None:
    models = {"default": Model(), "other": Model(temperature=0)}
    found = applications(Settings(server=Server(port=9005), llm=Llm(models=models)))
    assert set(found) == {"model-default", "model-other", "streamer", "gateway"}
    assert found["model-other"]["args"] == {"model": "other"}
    assert found["model-other"]["deployments"] == found["model-default"]["deployments"]


def test_model_that_is_not_configured_is_not_deployed() -> None:
    found = applications(Settings(llm=Llm(models={"only": Model()}, default_model="only")))
    assert set(found) == {"model-only", "streamer", "gateway"}
