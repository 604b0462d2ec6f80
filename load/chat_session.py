"""A session of several people over the API: chats that grow by turns and branch at each. sessions.py does the same with
tokens."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from load.chat_client import ChatClient
from load.chat_workloads import ChatPrompts
from load.sessions import ANSWER_TOKENS, BRANCHES, QUESTION_TOKENS, SLOTS, SYSTEM_TOKENS, TURNS

__all__ = ["SLOTS", "session_rate"]


async def session_rate(client: ChatClient, prompts: ChatPrompts, sampling: dict[str, Any], chats: int) -> float:
    """Output tokens a second over a whole session.

    So many chats with the same system message run at once. At each of four turns two different questions are asked on
    the same history, at once; the chat goes on from the first. What the model has answered is stood in for by as much
    text, so that all sides compute the same prompts.
    """
    system = prompts.system(SYSTEM_TOKENS)

    async def chat() -> int:
        history = [system]
        tokens = 0
        for _ in range(TURNS):
            questions = [[*history, prompts.user(QUESTION_TOKENS)] for _ in range(BRANCHES)]
            answers = await asyncio.gather(*(client.stream(asked, ANSWER_TOKENS, sampling) for asked in questions))
            tokens += sum(answer.tokens for answer in answers)
            history = [*questions[0], prompts.assistant(ANSWER_TOKENS)]
        return tokens

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*(chat() for _ in range(chats))))
    return tokens / (time.perf_counter() - began)
