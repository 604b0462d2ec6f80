"""llama.cpp's C interface. Untyped: the bindings annotate C types, not the Python values that calls take and return."""

from __future__ import annotations

from typing import Any

import llama_cpp.llama_cpp

llama: Any = llama_cpp.llama_cpp
