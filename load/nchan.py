"""nginx with nchan, which does the same fan-out from memory: a server of its own in a temporary folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil

from deployments.haproxy import free_port
from load.client import LoadError
from load.readers import Target, request

MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/share/nginx/modules"), Path("/usr/lib64/nginx/modules"))
MODULE = "ngx_nchan_module.so"
START_SECONDS = 20.0
ACCEPTED, REFUSED = b"HTTP/1.1 2", re.compile(rb"HTTP/1.1 [345]")
POST = b"POST /publish HTTP/1.1\r\nHost: bench\r\nX-EventSource-Event: message.delta\r\nContent-Length: %d\r\n\r\n%s"
CONFIG = """\
load_module {module};
user {user};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log warn;
worker_processes {cores};
worker_rlimit_nofile 16384;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 256m;
    server {{
        listen 127.0.0.1:{port} reuseport backlog=4096;
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id bench;
            nchan_message_buffer_length 20000;
            nchan_message_timeout 10m;
        }}
        location = /read {{
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
            nchan_eventsource_ping_interval 15;
        }}
    }}
}}
"""


class Nchan:
    """Runs inside the `with`, one worker a core. The system's own nginx is left alone."""

    def __init__(self) -> None:
        module = next((folder / MODULE for folder in MODULES if (folder / MODULE).exists()), None)
        self._program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if module is None or self._program is None:
            raise LoadError("nginx with nchan is needed (Debian: apt-get install nginx libnginx-mod-nchan)")
        self._module = module
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="nchan-bench-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._publisher: socket.socket | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._publisher:
            self._publisher.close()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder)

    def _start(self) -> None:
        config = self._folder / "nginx.conf"
        user = "root" if os.geteuid() == 0 else "nobody"
        text = CONFIG.format(
            module=self._module, user=user, folder=self._folder, port=self._port, cores=os.cpu_count() or 1
        )
        config.write_text(text)
        assert self._program
        with (self._folder / "start.log").open("wb") as log:
            command = [self._program, "-p", str(self._folder), "-e", str(self._folder / "error.log"), "-c", str(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while self._publisher is None:
            try:
                self._publisher = socket.create_connection(("127.0.0.1", self._port), timeout=START_SECONDS)
                self._publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_text = (self._folder / "start.log").read_text() + (self._folder / "error.log").read_text()
                    raise LoadError(f"nginx did not start:\n{log_text[-2000:]}") from None
                time.sleep(0.05)

    def target(self, readers: int) -> Target:
        """So many readers of the one channel."""
        return Target("127.0.0.1", self._port, [request("/read", {})] * readers)

    def publish(self, bodies: list[bytes]) -> None:
        """Each body as one event, over one connection without waiting between them; returns when all are accepted."""
        assert self._publisher
        self._publisher.sendall(b"".join(POST % (len(body), body) for body in bodies))
        answered, tail = 0, b""
        while answered < len(bodies):
            data = self._publisher.recv(1 << 16)
            if not data:
                raise LoadError("nginx closed the publisher's connection")
            data = tail + data
            if REFUSED.search(data):
                raise LoadError(f"nginx refused an event: {data[-500:].decode(errors='replace')}")
            answered += data.count(ACCEPTED)
            tail = data[1 - len(ACCEPTED) :]

    def processes(self) -> list[psutil.Process]:
        """The master and its workers."""
        assert self._process
        master = psutil.Process(self._process.pid)
        return [master, *master.children(recursive=True)]
