"""JSON for clients."""

from __future__ import annotations

import json
from typing import Any

import orjson
from fastapi.responses import Response


def json_bytes(value: Any) -> bytes:
    """The JSON of whatever clients send and models write, integers of any size and lone surrogates included, which
    orjson refuses."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def json_response(value: Any) -> Response:
    """An answer that nobody may keep for others."""
    return Response(json_bytes(value), headers={"Cache-Control": "no-store"}, media_type="application/json")
