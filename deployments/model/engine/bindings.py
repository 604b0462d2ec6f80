"""llama.cpp's C interface. Untyped: the bindings annotate C types, not the Python values that calls take and return."""

from __future__ import annotations

import os
from typing import Any

# Threads that spin while they wait starve the other processes of a small machine: with one busy competitor
# on 2 cores, spinning fell from 187 to 54 tokens a second, passive waiting from 114 to 85. OpenMP reads this when
# the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import llama_cpp.llama_cpp

llama: Any = llama_cpp.llama_cpp
