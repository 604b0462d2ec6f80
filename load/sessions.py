"""A session of several people: threads that grow by turns and branch at each."""

from __future__ import annotations

import asyncio
import time

from load.completion_client import GREEDY, SAMPLED, CompletionClient
from load.workloads import Prompts, Tokens

THREADS, TURNS, BRANCHES = 8, 4, 2
SLOTS = THREADS * BRANCHES
SYSTEM_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 200, 60, 64
SESSION_TOKENS = 1024


async def session_rate(client: CompletionClient, prompts: Prompts, number: int) -> float:
    """Output tokens a second over a whole session.

    Eight threads with the same system prompt run at once. At each of four turns two different questions are asked on
    the same history, at once; the thread goes on from the first. What the model has answered is stood in for by as many
    tokens of text, so that both sides compute the same prompts.
    """
    system = prompts.fresh(SYSTEM_TOKENS)
    sampling = SAMPLED if number % 2 else GREEDY

    async def thread(place: int) -> int:
        history: Tokens = system + prompts.fresh(QUESTION_TOKENS)
        tokens = 0
        for _ in range(TURNS):
            questions = [history + prompts.fresh(QUESTION_TOKENS) for _ in range(BRANCHES)]
            answers = await asyncio.gather(
                *(client.stream(question, ANSWER_TOKENS, sampling, str(place)) for question in questions)
            )
            tokens += sum(answer.tokens for answer in answers)
            history = questions[0] + prompts.fresh(ANSWER_TOKENS)
        return tokens

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(thread, range(THREADS))))
    return tokens / (time.perf_counter() - began)
