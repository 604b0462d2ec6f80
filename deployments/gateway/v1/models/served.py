"""The models that are served, as `/v1/models` tells of them."""

from __future__ import annotations

from typing import Any

import orjson

from db.pool import Database
from deployments.config import Llm

OWNER = "rustygpt"


class ServedModels:
    """Read from the database once a Gateway: `created` is when this installation first served a model, the same on
    every Gateway and after every start."""

    def __init__(self, database: Database, llm: Llm) -> None:
        self._database = database
        self._ids = llm.served()
        self._list = b""
        self._each: dict[str, bytes] = {}

    async def all(self) -> bytes:
        """The JSON of all, the default model first. Raises DatabaseUnavailable."""
        if not self._list:
            await self._read()
        return self._list

    async def one(self, model_id: str) -> bytes:
        """The JSON of one. Raises KeyError when there is no such model, DatabaseUnavailable."""
        if not self._each:
            await self._read()
        return self._each[model_id]

    async def _read(self) -> None:
        created = orjson.loads(await self._database.value("served_models", self._ids))
        cards: list[dict[str, Any]] = [
            {"id": model_id, "object": "model", "created": created[model_id], "owned_by": OWNER}
            for model_id in self._ids
        ]
        self._each = {card["id"]: orjson.dumps(card) for card in cards}
        self._list = orjson.dumps({"object": "list", "data": cards})
