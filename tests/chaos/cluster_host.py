"""A Ray cluster of three nodes on this machine, as a process of its own: `python -m tests.chaos.cluster_host PLAN`.

PLAN is a JSON file: {"folder", "ports", "serve_config"}. Each node has raylet, object store, workers and HAProxy of
its own; what sets the nodes apart from machines is that they share an address, so that each one's HAProxy has a port
of its own. Its environment is that of the Kubernetes manifest. It says `ready`; when it reads `kill`, `killed`; and
when it reads `add` and another node has joined, `ready` again. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from deployments.config import Server
from deployments.haproxy import free_port, haproxy_environment

MANIFEST = Path(__file__).parents[2] / "k8s" / "rayservice.yaml"
NODE = {"num_cpus": 4, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}
START_SECONDS = 300.0


def main(plan: dict[str, Any]) -> None:
    """Runs the cluster until standard input ends."""
    folder, ports = Path(plan["folder"]), list(plan["ports"])
    # Ray reads these when it is imported, in every process. Without the last one it leaves loopback.
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    os.environ.update(_manifest_environment() | haproxy_environment(folder / "h", Server(port=ports[0])) | own)
    worker_port = free_port()
    os.environ["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(worker_port)
    _tell_ports_apart(folder, worker_port)
    import ray._private.utils
    from ray.cluster_utils import Cluster

    # Others on this machine who look for "the" cluster must not find this one.
    ray._private.utils.write_ray_address = lambda *_: None
    cluster = Cluster()
    try:
        for port in ports:
            _add_node(cluster, folder, port)
        _serve(cluster, plan["serve_config"])
        _say("ready")
        killed: list[int] = []
        for line in sys.stdin:
            if line.strip() == "kill":
                # Not the head: without it there is no cluster.
                node = random.choice(list(cluster.worker_nodes))
                _kill(node)
                cluster.worker_nodes.remove(node)
                killed.append(node.chaos_port)
                _say("killed")
            else:
                _add_node(cluster, folder, killed.pop())
                _wait_until_running()
                _say("ready")
    finally:
        import ray

        ray.shutdown()
        for node in [*cluster.worker_nodes, *([cluster.head_node] if cluster.head_node else [])]:
            _kill(node)


def _manifest_environment() -> dict[str, str]:
    head = next(yaml.safe_load_all(MANIFEST.read_text()))["spec"]["rayClusterConfig"]["headGroupSpec"]
    settings = head["template"]["spec"]["containers"][0]["env"]
    # Of the manifest's configuration, all but what belongs to the size of its pods.
    return {item["name"]: item["value"] for item in settings if "value" in item and "N_THREADS" not in item["name"]}


def _tell_ports_apart(folder: Path, worker_port: int) -> None:
    """Makes HAProxy of a worker listen on ports that `_add_node` has written down for its node. Serve has the same
    ones for all workers, whatever their environment says: each is thought to have an address of its own."""
    script = folder / "haproxy"
    inner = [os.environ[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("METRICS", "STATS")]
    edits = [
        f'-e "s/^\\( *bind \\)[^ ]*:{old}$/\\1127.0.0.1:${place}/"'
        for place, old in enumerate((str(worker_port), *inner), start=1)
    ]
    script.write_text(
        "#!/bin/sh\n"
        'for argument do case "$argument" in *.cfg) configuration="$argument" ;; esac; done\n'
        f'ports="{folder}/ports/$(basename "$(dirname "$configuration")")"\n'
        'while [ ! -s "$ports" ]; do sleep 0.05; done\n'
        f'edit() {{ sed -i {" ".join(edits)} "$configuration"; }}\n'
        'edit $(cat "$ports")\n'
        f'exec "{os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]}" "$@"\n'
    )
    script.chmod(0o700)
    os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(script)
    (folder / "ports").mkdir()


def _add_node(cluster: Any, folder: Path, port: int) -> None:
    own = {"temp_dir": str(folder / "ray")} if cluster.head_node is None else {}
    node = cluster.add_node(**NODE, **own)
    node.chaos_port = port
    (folder / "ports" / node.node_id).write_text(f"{port} {free_port()} {free_port()}")


def _kill(node: Any) -> None:
    """Everything of the node at once, as when its machine loses power: raylet, workers, HAProxy."""
    for process in [info.process for infos in node.all_processes.values() for info in infos]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(process.pid)
            for victim in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()


def _serve(cluster: Any, config_file: str) -> None:
    import ray
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    ray.init(address=cluster.address, namespace="rustygpt")
    config = ServeDeploySchema.model_validate(yaml.safe_load(Path(config_file).read_text()))
    client = serve_start(
        http_options=config.http_options.model_dump(),
        proxy_location=config.proxy_location,
        global_logging_config=config.logging_config,
    )
    client.deploy_apps(config)
    _wait_until_running()


def _wait_until_running() -> None:
    from ray import serve

    deadline = time.monotonic() + START_SECONDS
    while True:
        status = serve.status()
        states = {name: application.status for name, application in status.applications.items()}
        if states and set(states.values()) == {"RUNNING"} and set(status.proxies.values()) == {"HEALTHY"}:
            return
        assert time.monotonic() < deadline, f"the cluster did not come up: {status}"
        time.sleep(0.2)


def _say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
