"""What a stored response was asked, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from deployments.gateway.v1.fields import invalid
from deployments.gateway.v1.responses.shape import item_id
from deployments.generation import Json

KINDS: dict[str, Literal["msg", "fc", "fco", "rs"]] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}


def page_of(
    response_id: str, items: Sequence[Json], after: str | None, limit: int, order: Literal["asc", "desc"]
) -> Json:
    """At most `limit` items, those after the one with the id `after`. Raises ApiError where there is no such one."""
    named = [
        {"id": item_id(KINDS[item["type"]], response_id, f"in{place}"), **item} for place, item in enumerate(items)
    ]
    if order == "desc":
        named.reverse()
    first = 0
    if after is not None:
        places = [place for place, item in enumerate(named) if item["id"] == after]
        if not places:
            raise invalid("after", f"This response has no input item {after!r}.")
        first = places[0] + 1
    page = named[first : first + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": first + limit < len(named),
    }
