"""A Ray cluster of this machine alone, with the applications of serve_config.yaml, for `rustygpt serve`."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import math
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from db.access import Access
from deployments.config import Settings, home
from deployments.haproxy import LOOPBACK, haproxy_environment, has_haproxy
from deployments.messages import CANNOT_RUN, model_app
from deployments.observability import standard_error
from deployments.observability.follower import Follower
from deployments.observability.logs import configure_logs, session_lines

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).parents[1] / "serve_config.yaml"
# A model's first start on a machine computes its reference answers, for a large one by slow code.
START_SECONDS = 1200.0
STOP_SECONDS = 5.0
# Where to reach a server of this machine that listens on every address.
LOCAL_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class StartError(Exception):
    """The cluster did not come up; the message says what failed."""


def serve_config(settings: Settings) -> dict[str, Any]:
    """serve_config.yaml with this configuration's host, port and models."""
    config = yaml.safe_load(_config_file(settings).read_text())
    host = LOOPBACK if has_haproxy() else settings.server.host
    config["http_options"] |= {"host": host, "port": settings.server.port}
    applications = config["applications"]
    known = {application["name"]: application for application in applications}
    wanted = [model_app(model_id) for model_id in settings.llm.models]
    pattern = next((application for application in applications if application["name"].startswith("model-")), None)
    if pattern is None:
        raise ValueError("it names no application model-<id>")
    others = [application for application in applications if not application["name"].startswith("model-")]
    models = [
        known.get(name) or pattern | {"name": name, "args": {"model": name.removeprefix("model-")}} for name in wanted
    ]
    return config | {"applications": [*models, *others]}


def _config_file(settings: Settings) -> Path:
    given = settings.cluster.serve_config
    return Path(given).expanduser() if given else CONFIG


def _note() -> Path:
    """Names the folder of the instance that runs, for `clear_leftovers` should it be killed."""
    return home() / "runtime-folder"


def clear_leftovers() -> None:
    """Ends what an instance of this home has left, be it that it was killed itself. The caller holds the home's lock:
    nothing of it is in use."""
    folder = _note().read_text() if _note().exists() else ""
    if not folder:
        return
    _end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    _note().unlink()


def _end_processes(folder: str) -> None:
    """Of the instance whose folder this is."""
    for process in psutil.process_iter(["cmdline"]):
        if any(folder in argument for argument in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(5)


class LocalCluster:
    """Ray on loopback with token authentication, its dashboard off unless asked for, HAProxy in front.

    What it starts it stops; its runtime files lie in a directory of their own.
    """

    def __init__(self, settings: Settings, access: Access) -> None:
        self._settings = settings
        self._access = access
        # Short, since Unix sockets with paths above 107 bytes cannot be opened.
        self._folder = Path(tempfile.mkdtemp(prefix="rgpt-", dir="/tmp"))
        _note().write_text(str(self._folder))
        self._follower = Follower(self._folder, session_lines(settings.logging), standard_error.write)

    def start(self) -> list[str]:
        """Returns when every application runs and every model is ready; where models cannot run on this machine, what
        /readyz says of them. Raises StartError."""
        # Ray and Serve read these when they are imported, in every process of the cluster.
        os.environ.update(self._environment())
        self._follower.start()
        from ray.exceptions import RayError

        try:
            return self._start()
        except (RayError, OSError, RuntimeError, ValueError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise StartError(f"Ray did not start: {(lines or [type(error).__name__])[-1]}") from error

    def _start(self) -> list[str]:
        import ray
        from ray.serve._private.api import serve_start
        from ray.serve.schema import ServeDeploySchema

        try:
            plan = serve_config(self._settings)
            config = ServeDeploySchema.model_validate(plan)
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
            fault = " ".join(str(error).split()) or type(error).__name__
            raise StartError(f"{_config_file(self._settings).name} cannot be used: {fault}") from error
        ray.init(
            address="local",
            namespace="rustygpt",
            include_dashboard=self._settings.cluster.dashboard,
            dashboard_host="127.0.0.1",
            object_store_memory=self._settings.cluster.object_store_bytes,
            num_cpus=max(os.cpu_count() or 1, _reserved_cpus(plan)),
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self._folder),
            configure_logging=True,
            logging_level=logging.WARNING,
            # Each line comes by the follower, as it was written.
            log_to_driver=False,
        )
        # Again, since Ray and Serve have set up their loggers of this process.
        configure_logs(self._settings.logging, "serve")
        client = serve_start(
            http_options=config.http_options.model_dump(),
            proxy_location=config.proxy_location,
            global_logging_config=config.logging_config,
        )
        client.deploy_apps(config)
        deadline = time.monotonic() + START_SECONDS
        self._wait_for_applications([application.name for application in config.applications], deadline)
        return self._wait_for_proxy(deadline)

    def _environment(self) -> dict[str, str]:
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # What RAY_SERVE_THROUGHPUT_OPTIMIZED=1 stands for, without its announcement on the console.
            "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
            "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
            "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
            # But for this: its warnings are read where all others are.
            "RAY_SERVE_LOG_TO_STDERR": "1",
            # Standard output is not for what Ray remarks on its workers.
            "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
            # Its log monitor has no files to watch: nobody asks it for lines, and it took 1.4 % of a core.
            "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
            "LOG_NAME_UPDATE_INTERVAL_S": "1e9",
            "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
            "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
            # At its default of 0.1 s the controller's loop takes 6 % of a core from the model's threads, which wait for
            # each other. A start takes no longer.
            "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
            "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_metrics_report_interval_ms": "2000",
            # Without it Ray replaces loopback by the machine's own address and listens there.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        if has_haproxy():
            environment |= haproxy_environment(self._folder / "haproxy", self._settings.server)
        return environment

    def _wait_for_applications(self, names: list[str], deadline: float) -> None:
        from ray import serve

        while True:
            applications = serve.status().applications
            states = {name: applications[name].status for name in names if name in applications}
            for name, state in states.items():
                if state == "DEPLOY_FAILED":
                    raise StartError(f"{name} did not start: {_reason(applications[name])}")
            if len(states) == len(names) and set(states.values()) == {"RUNNING"}:
                return
            if time.monotonic() > deadline:
                late = [name for name in names if states.get(name) != "RUNNING"]
                raise StartError(f"{', '.join(late)} did not start within {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def _wait_for_proxy(self, deadline: float) -> list[str]:
        """The proxy hears of the replicas a little after they run. Returns what will stay missing, whoever waits."""
        server = self._settings.server
        while True:
            connection = http.client.HTTPConnection(LOCAL_HOSTS.get(server.host, server.host), server.port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                missing: list[str] = json.loads(answer.read()).get("missing", [])
                if answer.status == 200 or (missing and all(CANNOT_RUN in fault for fault in missing)):
                    return missing
            connection.close()
            if time.monotonic() > deadline:
                raise StartError(f"the proxy did not answer on port {server.port} within {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stops the applications, Ray and the embedded database. What was committed is safe."""
        import ray

        processes = psutil.Process().children(recursive=True)
        if ray.is_initialized():
            ray.shutdown()
        # Ray kills its workers, but not the proxy, a child of one of them, nor what a failed start left.
        _end_processes(str(self._folder))
        # Nobody writes any more when the last lines are read.
        psutil.wait_procs(processes, timeout=STOP_SECONDS)
        self._follower.stop()
        clear_leftovers()
        if self._access.url is None:
            from db.embedded import EmbeddedPostgres

            EmbeddedPostgres(self._access.folder).stop()


def _reserved_cpus(config: dict[str, Any]) -> int:
    """What all replicas reserve. On one machine reservations must not keep a replica from starting: Ray would wait
    for a node that never comes."""
    total = 0.0
    for application in config["applications"]:
        for deployment in application["deployments"]:
            most = deployment.get("autoscaling_config", {}).get("max_replicas") or deployment.get("num_replicas", 1)
            total += most * deployment.get("ray_actor_options", {}).get("num_cpus", 1)
    return math.ceil(total)


def _reason(application: Any) -> str:
    """The last line of what a failed application says: the error itself, not its stack."""
    texts = [application.message, *(d.message for d in application.deployments.values())]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return (errors or lines or ["no reason was given"])[-1]
