"""Conversations as files: export and import."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from deployments.gateway.once import OnceOf
from deployments.gateway.services import ServicesOf, SessionOf, json_answer
from deployments.gateway.transfer.export import Writer, pieces, write_file
from deployments.gateway.transfer.json_file import JsonWriter, read_json
from deployments.gateway.transfer.markdown_file import MarkdownWriter, read_markdown
from deployments.gateway.transfer.reading import Reader, Reading
from deployments.gateway.transfer.schemas import Imported
from deployments.problems import ProblemError

router = APIRouter(tags=["Transfer"])
WRITERS: dict[str, type[Writer]] = {"json": JsonWriter, "markdown": MarkdownWriter}
READERS: dict[str, Reader] = {"application/json": read_json, "text/markdown": read_markdown}
IMPORT_PATH = "/api/conversations/import"
IMPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object", "description": "as exported"}},
            "text/markdown": {"schema": {"type": "string", "description": "as exported"}},
        },
    }
}
# An import may insert a hundred thousand messages in its one statement.
IMPORT_SECONDS = 300.0
# Reading takes several times the file's size in memory: one at a time in a replica.
_reading = asyncio.Semaphore(1)


@router.get("/api/conversations/{conversation_id}/export")
async def export_conversation(
    conversation_id: UUID,
    services: ServicesOf,
    session: SessionOf,
    file_format: Annotated[Literal["json", "markdown"], Query(alias="format")] = "json",
) -> Response:
    """The whole conversation as a file, as of one instant; answers that are being written are left out."""
    writer = WRITERS[file_format]()
    file = await write_file(services.database, session, conversation_id, writer)
    headers = {
        "Content-Length": str(await file.tell()),
        "Content-Disposition": f'attachment; filename="conversation-{conversation_id}.{writer.suffix}"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(pieces(file), headers=headers, media_type=writer.media_type)


@router.post(IMPORT_PATH, response_model=Imported, status_code=201, openapi_extra=IMPORT_BODY)
async def import_conversation(request: Request, services: ServicesOf, session: SessionOf, once: OnceOf) -> Response:
    """Makes a conversation of an exported file (application/json or text/markdown). The caller owns it, and is the
    author of what people said in it; their names are shown as imported."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    reader = READERS.get(media_type)
    if reader is None:
        raise ProblemError(415, "RGP.MEDIA_TYPE", f"Send the file as one of: {', '.join(READERS)}.")
    body = await request.body()
    async with _reading:
        reading = await asyncio.to_thread(reader, body)
        warnings = []
        settings = reading.conversation
        if settings.model is not None and settings.model not in services.settings.llm.served():
            warnings.append(f"The model {settings.model!r} is not served here; the default model answers.")
            settings = settings.model_copy(update={"model": None})
        messages = await asyncio.to_thread(_messages_json, reading)
    made = await services.database.value(
        "import", session, once, settings.model_dump_json(), messages, timeout_seconds=IMPORT_SECONDS
    )
    return json_answer(orjson.dumps(orjson.loads(made) | {"warnings": warnings}).decode(), 201)


def _messages_json(reading: Reading) -> str:
    return orjson.dumps([message.model_dump(mode="json") for message in reading.messages]).decode()
