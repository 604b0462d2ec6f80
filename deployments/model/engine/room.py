"""What a measurement may take of the memory. It runs beside the service, in containers that were made for the model."""

from __future__ import annotations

from pathlib import Path

import psutil

# All processes of a measurement together, mapped files included: so many times the model's file, and so much more.
BOUND_FACTOR, BOUND_BYTES = 1.5, 500_000_000
# The process that makes load while something is measured.
COMPETITOR_BYTES = 12 << 20
# For what differs between versions beside their size, and between measuring their speed and their quality.
MARGIN_BYTES = 32 << 20


class Room:
    """The bound for one model. One model is loaded at a time, so that it holds for any file; other versions of it are
    tried only where it holds for them."""

    def __init__(self, model: Path) -> None:
        self._model_bytes = model.stat().st_size
        own = psutil.Process().memory_info().rss
        # What one process that loads the model may take.
        self.process_bytes = int(BOUND_FACTOR * self._model_bytes) + BOUND_BYTES - own - COMPETITOR_BYTES

    def fits(self, version_bytes: int, peak_bytes: int) -> bool:
        """Whether a version of the model can be measured, where the given one took `peak_bytes`."""
        return peak_bytes - self._model_bytes + version_bytes + MARGIN_BYTES <= self.process_bytes
