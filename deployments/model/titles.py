"""The model's title for a thread."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deployments.model.engine import Engine, Finish, GenerationRequest
from deployments.model.prompt import Message, end_of
from deployments.tool_syntax import empty_thought

WORDS = 6
LONGEST = 60
EXCERPT = 1000  # characters of the first message: what follows seldom changes what it is about
PATIENCE_SECONDS = 30.0
REQUEST = (
    "Write a title of at most {words} words for a text that begins like this. Answer with the title only.\n\n{text}"
)


async def write_title(engine: Engine, history: Sequence[Message], user: str) -> str | None:
    """A title from what was said first; None where the model has none to give. Raises EngineError."""
    question = REQUEST.format(words=WORDS, text=history[0]["content"][:EXCERPT])
    prompt = engine.render_chat([{"role": "user", "content": question}])
    thought = empty_thought(engine.template.source, end_of(engine, prompt))
    generation = engine.generate(
        GenerationRequest(
            prompt_token_ids=(*prompt, *engine.vocabulary.tokenize(thought, special=True)),
            max_tokens=4 * WORDS,
            temperature=0.0,
            deadline=time.monotonic() + PATIENCE_SECONDS,
            user=user,
        )
    )
    text = "".join([item.text async for item in generation if not isinstance(item, Finish)])
    return trimmed(text)


def trimmed(text: str) -> str | None:
    """The title in what a model wrote: its first line, without quotes, marks of headings, and a full stop at the end;
    at most `LONGEST` characters, where more is cut between words and shown as cut. None where nothing is left."""
    line = next((line for line in text.replace("\0", " ").splitlines() if line.strip()), "")
    title = " ".join(line.split()).strip("\"'“”‘’*#` ").removesuffix(".").rstrip()
    if len(title) > LONGEST:
        cut = title[:LONGEST]
        title = (cut.rpartition(" ")[0] or cut[:-1]).rstrip(",;: ") + "…"
    return title or None
