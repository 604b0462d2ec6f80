"""Marks of pages that a client sends back to get the next one."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from uuid import UUID

from deployments.problems import ProblemError


def instant_mark(name: str, text: str) -> tuple[datetime, UUID]:
    """`instant,uuid`. Raises ProblemError 400 for anything else."""
    instant, _, entity = text.partition(",")
    try:
        return _instant(instant), UUID(entity)
    except (ValueError, OverflowError):
        raise _not_a_mark(name) from None


def rank_mark(name: str, text: str) -> tuple[float, datetime, UUID]:
    """`rank,instant,uuid`. Raises ProblemError 400 for anything else."""
    rank, _, rest = text.partition(",")
    try:
        number = float(rank)
    except ValueError:
        raise _not_a_mark(name) from None
    # What PostgreSQL's `real` holds: the rank was one.
    if not math.isfinite(number) or abs(number) > 1e38:
        raise _not_a_mark(name)
    return number, *instant_mark(name, rest)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError
    return instant.astimezone(UTC)


def _not_a_mark(name: str) -> ProblemError:
    return ProblemError(
        400, "RGP.VALIDATION", f"`{name}` is no page mark. Send `next_{name}` of the page that you have."
    )
