"""How far something is that takes a while: one line that changes, or on no terminal one a minute."""

from __future__ import annotations

import sys
import time

MINUTE = 60.0
# Before that share nothing can be said of the time that is left.
LEAST_SHARE = 0.05


class ProgressLine:
    """Shows `what: done of all, about N min left`. The time that is left follows from what has passed."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._shown = -MINUTE
        self._is_terminal = sys.stdout.isatty()
        self._width = 0

    def show(self, done: int, of: int) -> None:
        """Tells how much is done."""
        spent = time.monotonic() - self._began
        text = f"  {self._what}: {done} of {of}"
        if of * LEAST_SHARE < done < of:
            left = spent / done * (of - done)
            text += f", about {left / MINUTE:.0f} min left" if left >= MINUTE else ", less than a minute left"
        if self._is_terminal:
            print(f"\r{text:<{self._width}}", end="", flush=True)
            self._width = len(text)
        elif spent - self._shown >= MINUTE:
            self._shown = spent
            print(text, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self._is_terminal and self._width:
            print()
