"""Which layer a sampled stack belongs to: `py-spy record --format raw` gives the stacks."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from load.client import LoadError

Rules = Sequence[tuple[str, tuple[str, ...]]]

# The innermost frame that a rule knows decides. What C code does counts for the Python frame that called it.
GATEWAY: Rules = (
    ("routing by prefix", ("deployments/model/routing", "deployments/model/affinity", "deployments/prefixes")),
    ("API key and limits", ("v1/callers", "v1/known_keys", "v1/key_check", "v1/limits", "v1/bucket", "v1/metered")),
    ("validation", ("pydantic", "chat/schemas", "v1/fields", "chat/prompt", "fastapi/dependencies", "fastapi/_compat")),
    ("encoding", ("chat/encode", "v1/chunks", "v1/sse", "tool_syntax", "json/encoder")),
    ("middleware", ("gateway/middleware", "observability/")),
    ("Serve handle", ("serve/_private/router", "request_router", "replica_result", "serve/handle", "serialization")),
    ("gRPC", ("grpc/",)),
    ("Serve replica", ("ray/serve/", "ray/_private", "ray/util", "ray/actor")),
    ("HTTP server and framework", ("uvicorn", "h11", "httptools", "starlette", "fastapi")),
    ("database", ("asyncpg", "db/")),
    ("event loop", ("asyncio/", "uvloop", "threading", "selectors")),
)
MODEL: Rules = (
    ("rendering and tokenising", ("engine/chat_template", "engine/vocabulary", "jinja2")),
    ("sampling", ("_sample (", "engine/sampler", "engine/penalties", "engine/truncation", "engine/grammar")),
    ("computing", ("_compute (", "engine/prefill_lane", "engine/kv_memory", "llama_cpp")),
    ("engine, Python", ("model/engine",)),
    ("to items", ("model/asks", "deployments/generation")),
    ("Serve replica", ("ray/serve/", "ray/_private", "ray/util", "ray/actor")),
    ("gRPC", ("grpc/",)),
    ("event loop", ("asyncio/", "uvloop", "threading", "selectors", "concurrent/futures")),
)


class Sampler:
    """py-spy beside one process, for a fixed time. Started by `start`; it slows its target a little. Only threads that
    hold the GIL are sampled: those of Ray and gRPC look busy while they wait."""

    def __init__(self, pid: int, seconds: int, rate: int = 200) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "stacks"
        self._command = ["py-spy", "record", "--format", "raw", "--gil", "--nonblocking", "--full-filenames"]
        self._command += ["--pid", str(pid), "--duration", str(seconds), "--rate", str(rate), "-o", str(self._file)]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns at once."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def shares(self, rules: Rules) -> dict[str, float]:
        """Of the samples in which Python code ran, each layer's share. Raises LoadError."""
        assert self._process is not None
        said, _ = self._process.communicate(timeout=120)
        if not self._file.exists():
            raise LoadError(f"py-spy took no samples: {said[-500:]}")
        counts: Counter[str] = Counter()
        for line in self._file.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            counts[_layer(stack.split(";"), rules)] += int(count)
        self._folder.cleanup()
        total = sum(counts.values())
        return {layer: round(count / total, 3) for layer, count in counts.most_common()}


def _layer(frames: Sequence[str], rules: Rules) -> str:
    for frame in reversed(frames):
        for layer, places in rules:
            if any(place in frame for place in places):
                return layer
    return "other"
