"""What every measurement of a model keeps to: choices that were verified to work on this machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choices:
    """The process's, and EngineOptions' that were given up: those are not tried. The default gives nothing up."""

    own_kernels: bool = True
    cpu_variant: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> dict[str, Any]:
        """Those of the process: what `backend.select` takes."""
        return {"own_kernels": self.own_kernels, "cpu_variant": self.cpu_variant}

    def changed(self) -> dict[str, Any]:
        """What differs from the default."""
        default = dataclasses.asdict(Choices())
        return {name: value for name, value in dataclasses.asdict(self).items() if value != default[name]}
