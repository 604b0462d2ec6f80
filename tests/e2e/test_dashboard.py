"""The dashboard's queries, answered by a real Prometheus that scrapes the running product while people use it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.haproxy import free_port
from tests.support.person import Person
from tests.support.product import Product

K8S = Path(__file__).parents[2] / "k8s"
PANELS: list[dict[str, Any]] = json.loads((K8S / "grafana" / "rustygpt.json").read_text())["panels"]
WINDOW = "30s"
PATIENCE_SECONDS = 150.0

# What each query of a panel returned: its legend with labels filled in, and the latest value.
Shown = dict[str, dict[str, float]]

GROWING = (("Logins per minute", "invalid_credentials"), ("Answers per minute", "stop"))


class Prometheus:
    """A server of its own with the scrape configuration of k8s/, aimed at the given product."""

    def __init__(self, program: Path, folder: Path, target: str) -> None:
        self._program = program
        self._folder = folder
        self._target = target
        self._url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers queries."""
        config = yaml.safe_load((K8S / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        job = config["scrape_configs"][0]
        job |= {"scrape_timeout": "1s", "static_configs": [{"targets": [self._target]}]}
        file = self._folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        address = self._url.removeprefix("http://")
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={file}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 30
        while not self._is_ready():
            assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, "Prometheus was not ready within 30 s"
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector, as its HTTP API gives it. Fails on an expression that it does not accept."""
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return answer.json()["data"]["result"]

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False


def shown_now(prometheus: Prometheus, panel: dict[str, Any]) -> dict[str, float]:
    """What the panel would draw: by legend. A label that a legend names and a series lacks stays in braces."""
    values = {}
    for target in panel["targets"]:
        for series in prometheus.query(target["expr"].replace("$__rate_interval", WINDOW)):
            labels = series["metric"]
            legend = re.sub(r"{{(\w+)}}", lambda m, known=labels: known.get(m[1], m[0]), target["legendFormat"])
            values[legend] = float(series["value"][1])
    return values


def faults(panel: dict[str, Any], values: dict[str, float]) -> list[str]:
    """Why the panel is not complete: a query without a number, or a legend without its label."""
    found = []
    for target in panel["targets"]:
        pattern = re.sub(r"\\{\\{\w+\\}\\}", "[^{}]+", re.escape(target["legendFormat"]))
        numbers = [v for legend, v in values.items() if re.fullmatch(pattern, legend) and not math.isnan(v)]
        if not numbers:
            found.append(f"{panel['title']}: {target['expr']} gave {values}")
    return found


def use(person: Person, conversation: str) -> None:
    """A question, its answer, a second question in the thread, and a wrong password."""
    posted = person.ask(conversation, "Name three colours.")
    person.follow(conversation, posted["cursor"])
    again = person.reply(posted["assistant_message_id"], "And one more.")
    person.follow(conversation, again["cursor"])
    wrong = {"email": person.name, "password": "not the password"}
    assert httpx.post(f"{person.http.base_url}/api/auth/login", json=wrong).status_code == 401


@pytest.fixture(scope="module")
def prometheus(
    prometheus_program: Path, product: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    server = Prometheus(prometheus_program, folder, product.url.removeprefix("http://"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shown(prometheus: Prometheus, admin: Person) -> Shown:
    """All panels, looked at when each query has an answer, or when patience ends. One stream stays open."""
    person = admin.invite()
    conversation = person.converse()
    deadline = time.monotonic() + PATIENCE_SECONDS
    with person.stream(conversation, "0"):
        while True:
            use(person, conversation)
            shown = {panel["title"]: shown_now(prometheus, panel) for panel in PANELS}
            complete = not any(faults(panel, shown[panel["title"]]) for panel in PANELS)
            # A counter that Prometheus sees for the first time has not grown yet.
            grown = all(shown[title].get(legend, 0) > 0 for title, legend in GROWING)
            if (complete and grown) or time.monotonic() > deadline:
                return shown


def test_every_query_of_the_dashboard_has_an_answer(shown: Shown) -> None:
    assert [fault for panel in PANELS for fault in faults(panel, shown[panel["title"]])] == []


def test_what_people_did_is_told_apart(shown: Shown) -> None:
    assert {"200", "201", "401"} <= shown["Requests per second"].keys()
    assert "stop" in shown["Answers per minute"]
    assert {"message.created", "message.delta", "message.done"} <= shown["Events sent per second"].keys()
    assert shown["Logins per minute"]["invalid_credentials"] > 0


def test_the_open_stream_is_counted(shown: Shown) -> None:
    assert shown["Open streams"]["streams"] >= 1


def test_quantiles_are_in_order_and_the_share_is_a_share(shown: Shown) -> None:
    for panel in ("Request latency", "First token"):
        assert 0 < shown[panel]["p50"] <= shown[panel]["p95"]
    assert 0 < shown["Cached share of prompts"]["share"] < 1


def test_scrape_configuration_is_accepted_by_promtool(promtool_program: Path) -> None:
    command = [promtool_program, "check", "config", str(K8S / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
