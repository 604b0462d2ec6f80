"""The files for Kubernetes: current, well formed, and true to the code that they name."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.serve import Application
from ray.serve.metrics import Counter, Gauge, Histogram
from ray.serve.schema import ServeDeploySchema

from deployments.observability import metrics
from k8s import render

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
MANIFEST = yaml.safe_load(render.MANIFEST.read_text())
CLUSTER = MANIFEST["spec"]["rayClusterConfig"]
TEMPLATES = {
    "head": CLUSTER["headGroupSpec"]["template"],
    **{group["groupName"]: group["template"] for group in CLUSTER["workerGroupSpecs"]},
}
SERVE = ServeDeploySchema.model_validate(yaml.safe_load(MANIFEST["spec"]["serveConfigV2"]))
DASHBOARD = json.loads((K8S / "grafana" / "rustygpt.json").read_text())


def environment(template: dict[str, Any]) -> dict[str, Any]:
    [container] = template["spec"]["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names))
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


# The serve configuration


def test_manifest_runs_what_serve_config_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check"]) == 0, capsys.readouterr().err
    ours = yaml.safe_load(render.SERVE_CONFIG.read_text())
    theirs = yaml.safe_load(MANIFEST["spec"]["serveConfigV2"])
    assert theirs == ours | {"http_options": ours["http_options"] | {"host": "0.0.0.0"}}


def test_stale_manifest_is_told_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, config = tmp_path / "rayservice.yaml", tmp_path / "serve_config.yaml"
    manifest.write_text(render.MANIFEST.read_text())
    config.write_text(render.SERVE_CONFIG.read_text().replace("max_replicas: 4", "max_replicas: 9"))
    monkeypatch.setattr(render, "MANIFEST", manifest)
    monkeypatch.setattr(render, "SERVE_CONFIG", config)
    assert render.main(["--check"]) == 1
    assert "max_replicas: 9" not in manifest.read_text()
    assert render.main([]) == 0
    assert render.main(["--check"]) == 0
    changed = yaml.safe_load(manifest.read_text())
    assert "max_replicas: 9" in changed["spec"].pop("serveConfigV2")
    assert changed == {**MANIFEST, "spec": {k: v for k, v in MANIFEST["spec"].items() if k != "serveConfigV2"}}


def test_manifest_without_a_place_for_the_serve_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="serveConfigV2"):
        render.rendered("kind: RayService\n", render.SERVE_CONFIG.read_text())


def _deployments(built: Application) -> set[str]:
    """Names of what an application begins with and of all that is bound to it."""
    bound = built._bound_deployment
    beneath = [argument for argument in bound.init_args if isinstance(argument, Application)]
    return {bound.name}.union(*map(_deployments, beneath))


@pytest.mark.parametrize("application", SERVE.applications, ids=lambda a: a.name)
def test_application_is_built_by_what_its_import_path_names(application: Any) -> None:
    module, _, name = application.import_path.partition(":")
    build = getattr(import_module(module), name)
    built = build(application.args)
    assert isinstance(built, Application)
    assert {deployment.name for deployment in application.deployments} <= _deployments(built)


# The cluster


def test_ray_is_the_version_that_the_image_gets() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert CLUSTER["rayVersion"] == pins["ray"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_pod_is_one_that_kubernetes_accepts(name: str) -> None:
    template = TEMPLATES[name]
    metadata = {"name": f"rustygpt-{name}"} | template.get("metadata", {})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_service_is_one_that_kubernetes_accepts_and_leads_to_the_proxy() -> None:
    service = MANIFEST["spec"]["serveService"]
    kubernetes_validate.validate(service, kubernetes_validate.latest_version(), strict=True)
    [port] = service["spec"]["ports"]
    assert port["targetPort"] == yaml.safe_load(MANIFEST["spec"]["serveConfigV2"])["http_options"]["port"]
    [scrape] = yaml.safe_load((K8S / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["job_name"] == "rustygpt"
    assert scrape["static_configs"] == [{"targets": [f"{service['metadata']['name']}.default.svc:{port['port']}"]}]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_pod_has_the_database_the_proxy_and_probes(name: str) -> None:
    [container] = TEMPLATES[name]["spec"]["containers"]
    found = environment(TEMPLATES[name])
    assert found["DATABASE_URL"] == {"secretKeyRef": {"name": "rustygpt-database", "key": "url"}}
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == found["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert {"requests", "limits"} <= container["resources"].keys()
    assert {"readinessProbe", "livenessProbe"} <= container.keys()


def test_all_pods_run_one_image_with_one_environment() -> None:
    containers = [template["spec"]["containers"][0] for template in TEMPLATES.values()]
    assert len({container["image"] for container in containers}) == 1
    assert all(container["env"] == containers[0]["env"] for container in containers)


@pytest.mark.parametrize("name", TEMPLATES)
def test_environment_is_a_configuration_that_the_product_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.config import load_settings

    for variable, value in environment(TEMPLATES[name]).items():
        monkeypatch.setenv(variable, value if isinstance(value, str) else "postgres://somebody@database/rustygpt")
    settings = load_settings()
    assert settings.db.url is not None
    limit = int(TEMPLATES["workers"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert all(model.n_threads is not None and model.n_threads < limit for model in settings.llm.models.values())


def test_cluster_requires_the_token_and_holds_none() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH" not in render.MANIFEST.read_text().partition("rayClusterConfig:")[2].replace(
        "sets RAY_AUTH_MODE and RAY_AUTH_TOKEN", ""
    )


# The image


def test_dockerfile_copies_what_is_there_and_what_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (K8S / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source.rstrip("/") for line in copied for source in line.split()]
    ignore = (K8S / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert sources
    assert all((ROOT / source).exists() and source in kept for source in sources)
    assert {"constraints.txt", "serve_config.yaml", "cli", "db", "deployments", "web"} <= set(sources)


# The dashboard


def test_dashboard_is_one_that_grafana_imports_and_refreshes() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["refresh"]) == ("rustygpt", "30s")
    assert DASHBOARD["schemaVersion"] >= 38
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    sources = [part["datasource"] for panel in panels for part in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "prometheus"} for source in sources)


def test_dashboard_asks_only_for_metrics_that_the_product_has() -> None:
    known = set()
    for metric in vars(metrics).values():
        if isinstance(metric, (Counter, Gauge)):
            known.add(metric.info["name"])
        elif isinstance(metric, Histogram):
            known |= {f"{metric.info['name']}_bucket", f"{metric.info['name']}_count"}
    expressions = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    asked = set(re.findall(r"\b(?:http|rustygpt|llm|sse)_\w+", expressions))
    assert asked
    assert asked <= known
