"""Writing a conversation's file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol
from uuid import UUID

import orjson
from anyio import SpooledTemporaryFile

from db.pool import Database

MEMORY_BYTES = 1 << 20
PIECE_BYTES = 1 << 18


class Writer(Protocol):
    """A format: its pieces in order make the file."""

    media_type: str
    suffix: str

    def head(self, head: dict[str, Any]) -> str:
        """All but the messages."""
        ...

    def message(self, depth: int, part: str, /) -> str:
        """One message; they come depth first."""
        ...

    def end(self) -> str:
        """What closes the file."""
        ...


async def write_file(
    database: Database, session: bytes, conversation_id: UUID, writer: Writer
) -> SpooledTemporaryFile[bytes]:
    """The file, complete and of one instant; on disk beyond a megabyte, so that memory does not grow with it.

    It is whole before the first byte of the answer: a failure is told as one, and a client that reads slowly holds
    no connection to the database. Raises RefusedError, DatabaseUnavailable.
    """
    file = SpooledTemporaryFile[bytes](max_size=MEMORY_BYTES)
    try:
        async with aclosing(database.snapshot("export", session, conversation_id)) as rows:
            async for depth, part in rows:
                piece = writer.message(depth, part) if depth else writer.head(orjson.loads(part))
                await file.write(piece.encode())
        await file.write(writer.end().encode())
    except BaseException:
        await file.aclose()
        raise
    return file


async def pieces(file: SpooledTemporaryFile[bytes]) -> AsyncIterator[bytes]:
    """The file's bytes; it is gone afterwards."""
    async with file:
        await file.seek(0)
        while piece := await file.read(PIECE_BYTES):
            yield piece
