"""llama.cpp's C interface. Untyped: the bindings annotate C types, not the Python values that calls take and return."""

from __future__ import annotations

from typing import Any

from deployments.model.engine import backend


class _Library:
    """llama_cpp's functions and types, loaded at first use: until then the compiled code can be chosen (backend.py),
    and how OpenMP's threads wait, which its runtime reads when it is loaded (tuning.py)."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(backend.load(), name)
        setattr(self, name, value)
        return value


llama: Any = _Library()
