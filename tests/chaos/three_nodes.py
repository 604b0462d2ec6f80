"""The product on a Ray cluster of three nodes, with a door on each and a database outside of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml

from deployments.haproxy import free_port
from deployments.local_cluster import CONFIG
from tests.chaos.moves import Stage, Struck
from tests.support.product import environment

NODES = 3


class ThreeNodes:
    """The cluster's host process, and what it is told."""

    def __init__(self, folder: Path, urls: tuple[str, str], settings: dict[str, str]) -> None:
        own_url, self.database_url = urls
        self._ports = [free_port() for _ in range(NODES)]
        plan = folder / "plan.json"
        config = folder / "serve_config.yaml"
        config.write_text(yaml.safe_dump(_spread(self._ports[0])))
        plan.write_text(json.dumps({"folder": str(folder), "ports": self._ports, "serve_config": str(config)}))
        with (folder / "host.log").open("wb") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.cluster_host", str(plan)],
                env=environment(folder / "home", DATABASE_URL=own_url, **settings),
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def doors(self) -> Sequence[str]:
        """One a node, the head's first."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def find(self, part: str) -> list[psutil.Process]:
        """Nodes are what is killed here."""
        raise NotImplementedError(part)

    def restart(self) -> None:
        """See `find`."""
        raise NotImplementedError

    def expect(self, word: str) -> None:
        """Waits until the host says so."""
        assert self._host.stdout is not None
        for line in self._host.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"the cluster's host ended before it said {word!r}")

    def say(self, word: str) -> None:
        """Tells the host."""
        assert self._host.stdin is not None
        print(word, file=self._host.stdin, flush=True)

    def stop(self) -> None:
        """Ends all nodes."""
        assert self._host.stdin is not None
        self._host.stdin.close()
        self._host.wait(60)


def _spread(port: int) -> dict[str, object]:
    """serve_config.yaml with a Gateway and a Streamer on every node, and Models on two."""
    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    for application in config["applications"]:
        deployment = application["deployments"][0]
        deployment.pop("autoscaling_config", None)
        deployment["num_replicas"] = 2 if deployment["name"] == "Model" else NODES
        deployment["max_replicas_per_node"] = 1
    return config


async def kill_node(stage: Stage) -> Struck:
    """Kills every process of one node at once; not the head's. Another node joins when that was recovered from."""
    service = stage.service
    assert isinstance(service, ThreeNodes)
    since = time.monotonic()
    service.say("kill")
    await asyncio.to_thread(service.expect, "killed")

    async def recovery() -> float:
        seconds = await stage.probe.seconds(since)
        service.say("add")
        await asyncio.to_thread(service.expect, "ready")
        return seconds

    return Struck(since, recovery=recovery())
