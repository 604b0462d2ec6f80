"""llama.cpp's C interface. Untyped: the bindings annotate C types, not the Python values that calls take and return."""

from __future__ import annotations

from typing import Any

from deployments.model.engine.own_products import OwnProducts

# Before llama.cpp, which whoever imports it gets from here.
own_products = OwnProducts()


class _Library:
    """llama_cpp's functions and types, loaded at first use: OpenMP's runtime reads when it is loaded how its threads
    shall wait, and until then that can be chosen (tuning.py)."""

    def __getattr__(self, name: str) -> Any:
        import llama_cpp.llama_cpp as library

        value = getattr(library, name)
        setattr(self, name, value)
        return value


llama: Any = _Library()
