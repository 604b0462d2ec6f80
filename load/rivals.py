"""Servers under measurement: llama.cpp's own, built by load/build_rivals.sh, and the engine's thin one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from deployments.haproxy import free_port

LITELLM_MODEL, LITELLM_KEY = "bench", "sk-bench"


class Server:
    """A server process on loopback; ends with the `with`."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str] | None = None) -> None:
        self._environment = environment
        self.url = f"http://127.0.0.1:{port}"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=Path(__file__).parents[1],
            start_new_session=True,  # Ctrl-C is for the driver, which then ends it
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def llama_server(folder: Path, model: Path, slots: int, sequence_tokens: int, threads: int) -> Server:
    """`llama-server -np slots -fa on`."""
    port = free_port()
    sizes = ["-c", str(slots * sequence_tokens), "-np", str(slots), "-fa", "on", "-t", str(threads)]
    command = [str(folder / "bin" / "llama-server"), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    return Server([*command, *sizes, "--no-webui"], port)


def litellm_proxy(folder: Path, config: Path, target: str) -> Server:
    """LiteLLM's proxy, installed by load/install_litellm.sh, in front of an OpenAI-compatible server: as it comes, no
    database, a key that it checks, nothing logged. Its model is LITELLM_MODEL, its key LITELLM_KEY."""
    port = free_port()
    upstream = {"model": f"openai/{LITELLM_MODEL}", "api_base": f"{target}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": LITELLM_MODEL, "litellm_params": upstream}],
        "general_settings": {"master_key": LITELLM_KEY},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    config.write_text(json.dumps(settings))  # YAML takes JSON
    # It looks for prices on the net, and waits, unless it is told to use those that it brings.
    environment = dict(os.environ) | {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    program = folder / "litellm" / "bin" / "litellm"
    command = [
        str(program),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry",
        "False",
    ]
    return Server(command, port, environment)


def engine_server(model: Path, options: dict[str, Any], wait_policy: str = "default") -> Server:
    """The engine with these options, its threads waiting in this way."""
    port = free_port()
    command = [sys.executable, "-m", "load.engine_server", "--model", str(model), "--port", str(port)]
    environment = dict(os.environ) | ({} if wait_policy == "default" else {"OMP_WAIT_POLICY": wait_policy})
    return Server([*command, "--options", json.dumps(options)], port, environment)


def batched_bench(folder: Path, model: Path, concurrency: int, threads: int) -> float:
    """Output tokens a second that llama.cpp's own batch loop reaches: 60 tokens of prompt and 64 of answer each,
    prefill included, without sampling, text, or a server."""
    # A cell for each token of each stream, in whole blocks of 256.
    command = [str(folder / "bin" / "llama-batched-bench"), "-m", str(model), "-c", str(256 * concurrency)]
    sizes = ["-npp", "60", "-ntg", "64", "-npl", str(concurrency), "-fa", "on", "-t", str(threads), "-b", "512"]
    done = subprocess.run([*command, *sizes], check=True, capture_output=True, text=True)
    rows = [re.findall(r"[\d.]+", line) for line in done.stdout.splitlines() if line.startswith("|")]
    seconds = next(float(row[8]) for row in rows if len(row) == 10 and row[2] == str(concurrency))
    return 64 * concurrency / seconds
