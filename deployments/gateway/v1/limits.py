"""How much a caller may use in a minute."""

from __future__ import annotations

from deployments.gateway.v1.callers import Caller


class Limits:
    """Requests and tokens per minute."""

    def charge(self, caller: Caller, tokens: int) -> None:
        """Counts the tokens of an answer that has ended, prompt included. Returns at once, raises nothing."""
