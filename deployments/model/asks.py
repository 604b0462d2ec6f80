"""From an Ask to the engine and back: the same for stateless and for stored answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from deployments.config import Model
from deployments.generation import (
    Ask,
    Embedded,
    Ended,
    Item,
    Json,
    Logprob,
    Piece,
    Refused,
    Sampling,
    Started,
    Tokenized,
    Tools,
)
from deployments.model.engine import (
    Engine,
    EngineError,
    Finish,
    Generation,
    GenerationRequest,
    InvalidRequest,
    NoEmbeddings,
    PromptRefused,
    PromptTooLong,
    QueueFull,
    TokenDelta,
    TokenLogprob,
)
from deployments.model.engine.grammar import check_grammar, schema_grammar
from deployments.model.prompt import end_of, longest, merged
from deployments.tool_syntax import (
    MARKERS,
    THINK,
    THINKING,
    BadTools,
    described,
    family_of,
    opens_thinking,
    tool_grammar,
    with_tools,
)


def prompt_of(engine: Engine, model: Model, ask: Ask) -> list[int]:
    """Token ids of what the model reads. Raises PromptRefused, InvalidRequest."""
    if ask.token_ids is not None:
        return list(ask.token_ids)
    if ask.text is not None:
        bos = [engine.vocabulary.bos] if engine.vocabulary.adds_bos else []
        return [*bos, *engine.tokenize(ask.text)]
    messages: Sequence[Json] = ask.messages
    if model.system_prompt and not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": model.system_prompt}, *messages]
    if not ask.trims:
        return _rendered(engine, messages, ask.tools)
    head = next((place for place, said in enumerate(messages) if said["role"] != "system"), len(messages))
    # A prompt may begin where a user says something: what follows it, calls and their outputs, stays together.
    starts = [
        place for place, said in enumerate(messages) if place == head or (place > head and said["role"] == "user")
    ]
    return longest(
        starts or [head],
        lambda start: _rendered(engine, [*messages[:head], *messages[start:]], ask.tools),
        room_of(engine, model, ask.sampling),
    )


def room_of(engine: Engine, model: Model, sampling: Sampling) -> int:
    """How many tokens a prompt may have whose beginning can be left out: a quarter of the window, or less where answers
    are shorter, is kept for the answer."""
    limit = engine.max_sequence_tokens
    return limit - min(model.max_tokens if sampling.max_tokens is None else sampling.max_tokens, limit // 4)


def _rendered(engine: Engine, messages: Sequence[Json], tools: Tools | None) -> list[int]:
    knows_tools = engine.template.knows_tools
    messages = with_tools(messages, tools, knows_tools)
    functions = described(tools) if knows_tools else []
    try:
        return engine.render_chat(messages, functions)
    except PromptRefused:
        # Many templates insist that user and assistant alternate.
        if any("tool_calls" in message or message["role"] == "tool" for message in messages):
            raise
        joined = merged([dict(message) for message in messages])
        if len(joined) == len(messages):
            raise
        return engine.render_chat(joined, functions)


def prepare(engine: Engine, model: Model, ask: Ask) -> GenerationRequest:
    """What the engine is to do; long prompts and schemas take a while. Raises PromptRefused, InvalidRequest."""
    chosen = ask.sampling
    prompt = prompt_of(engine, model, ask)
    return GenerationRequest(
        prompt_token_ids=tuple(prompt),
        produced_token_ids=ask.produced_token_ids,
        max_tokens=model.max_tokens if chosen.max_tokens is None else chosen.max_tokens,
        temperature=model.temperature if chosen.temperature is None else chosen.temperature,
        top_p=model.top_p if chosen.top_p is None else chosen.top_p,
        top_k=model.top_k if chosen.top_k is None else chosen.top_k,
        min_p=chosen.min_p,
        typical_p=chosen.typical_p,
        repeat_penalty=model.repeat_penalty if chosen.repeat_penalty is None else chosen.repeat_penalty,
        presence_penalty=chosen.presence_penalty,
        frequency_penalty=chosen.frequency_penalty,
        logit_bias=chosen.logit_bias,
        seed=chosen.seed,
        top_logprobs=chosen.top_logprobs,
        stop=chosen.stop,
        # The parts of what was said are told apart by these, which some vocabularies have as control tokens.
        shown_tokens=MARKERS if ask.tools else THINKING if ask.messages else (),
        ignore_eos=chosen.ignore_eos,
        grammar=_checked(_grammar(engine, ask, prompt)),
        deadline=time.monotonic() + ask.seconds,
        user=ask.user,
    )


def _checked(grammar: str | None) -> str | None:
    # The engine does not look at it again.
    if grammar is not None:
        check_grammar(grammar)
    return grammar


def _grammar(engine: Engine, ask: Ask, prompt: Sequence[int]) -> str | None:
    # Where another format is asked for, calls are left to the model.
    if ask.json_schema is not None:
        # Here, not by the engine: that of a large schema takes seconds, in which no event loop must wait.
        return schema_grammar(ask.json_schema)
    if ask.tools is None or ask.grammar is not None:
        return ask.grammar
    thinking = opens_thinking(end_of(engine, prompt))
    try:
        return tool_grammar(ask.tools, family_of(engine.template.source), schema_grammar, thinking)
    except BadTools as error:
        raise InvalidRequest("tools", str(error)) from error


def opening(engine: Engine, ask: Ask, request: GenerationRequest) -> str:
    """What the prompt has written of the answer itself, and its reader needs to see: the mark that thinking begins.
    Empty where the answer goes on after tokens that were made before, or follows a format that has no thinking."""
    if request.produced_token_ids or ask.json_schema is not None or ask.grammar is not None:
        return ""
    return THINK if opens_thinking(end_of(engine, request.prompt_token_ids)) else ""


async def embed(engine: Engine, texts: Sequence[str | tuple[int, ...]]) -> Embedded | Refused:
    """One vector for each text (or its token ids)."""
    vectors: list[tuple[float, ...]] = []
    tokens = 0
    try:
        for text in texts:
            token_ids = engine.vocabulary.tokenize(text, is_whole=True) if isinstance(text, str) else text
            tokens += len(token_ids)
            vectors.append(tuple((await engine.embed(token_ids)).tolist()))
    except EngineError as error:
        return refusal(error)
    return Embedded(tuple(vectors), tokens)


async def tokenized(engine: Engine, model: Model, ask: Ask) -> Tokenized | Refused:
    """The prompt that an Ask makes."""
    try:
        return await asyncio.to_thread(_tokenized, engine, model, ask)
    except EngineError as error:
        return refusal(error)


def _tokenized(engine: Engine, model: Model, ask: Ask) -> Tokenized:
    token_ids = prompt_of(engine, model, ask)
    engine.vocabulary.check(token_ids, "token_ids")
    return Tokenized(tuple(token_ids), tuple(engine.vocabulary.pieces[token] for token in token_ids))


async def refused(engine: Engine, model: Model, ask: Ask) -> Refused | None:
    """Why this cannot be answered at all, if so. No slot is taken for it."""
    try:
        engine.validate(await asyncio.to_thread(prepare, engine, model, ask))
    except EngineError as error:
        return refusal(error)
    return None


async def generate(engine: Engine, model: Model, ask: Ask) -> AsyncGenerator[list[Item], None]:
    """Batches of items, as generation.py says; text that comes while a batch is taken gathers in the next one.
    Leaving early cancels."""
    generations: list[Generation] = []
    try:
        try:
            request = await asyncio.to_thread(prepare, engine, model, ask)
            generations = engine.generate_several(request, ask.n)
        except EngineError as error:
            yield [refusal(error)]
            return
        batch: list[Item] = [Started(len(request.prompt_token_ids))]
        if opened := opening(engine, ask, request):
            batch += [Piece(index, opened) for index in range(ask.n)]
        yield batch
        if len(generations) == 1:
            async for batch in _one(engine, generations[0], 0):
                yield batch
        else:
            async for batch in _several(engine, generations):
                yield batch
    finally:
        for generation in generations:
            generation.cancel()


async def _one(engine: Engine, generation: Generation, index: int) -> AsyncIterator[list[Item]]:
    while True:
        ready = await generation.ready()
        yield [item_of(engine, index, made) for made in ready]
        if isinstance(ready[-1], Finish):
            return


async def _several(engine: Engine, generations: Sequence[Generation]) -> AsyncIterator[list[Item]]:
    # No TaskGroup: one must not be left in the middle, as a generator is by a caller who leaves.
    made: asyncio.Queue[Item | asyncio.Task[None]] = asyncio.Queue()

    async def pass_on(index: int, generation: Generation) -> None:
        async for batch in _one(engine, generation, index):
            for item in batch:
                made.put_nowait(item)

    tasks = [asyncio.create_task(pass_on(*numbered)) for numbered in enumerate(generations)]
    for task in tasks:
        task.add_done_callback(made.put_nowait)
    running = len(tasks)
    try:
        while running:
            batch = [await made.get()]
            while not made.empty():
                batch.append(made.get_nowait())
            for ended in batch:
                if isinstance(ended, asyncio.Task):
                    ended.result()
                    running -= 1
            if items := [item for item in batch if not isinstance(item, asyncio.Task)]:
                yield items
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def item_of(engine: Engine, index: int, made: TokenDelta | Finish) -> Piece | Ended:
    """What the engine made, as other processes know it."""
    if isinstance(made, Finish):
        return Ended(
            index,
            made.reason,
            made.prompt_tokens,
            made.completion_tokens,
            made.cached_tokens,
            made.message,
            made.stop_string,
        )
    return Piece(index, made.text, made.token_ids, logprobs_of(engine, made.logprobs))


def logprobs_of(engine: Engine, logprobs: Sequence[TokenLogprob]) -> tuple[Logprob, ...]:
    """With the tokens' texts."""

    def spelt(token: int) -> tuple[str, bytes]:
        raw = engine.vocabulary.pieces[token]
        return (raw.decode("utf-8", "replace") or engine.vocabulary.text(token)), raw

    return tuple(
        Logprob(*spelt(item.token_id), item.logprob, tuple((*spelt(token), value) for token, value in item.top))
        for item in logprobs
    )


def refusal(error: EngineError) -> Refused:
    """Why a request was not taken."""
    match error:
        case InvalidRequest():
            return Refused("invalid", str(error), error.param)
        case PromptTooLong():
            return Refused("too_long", str(error))
        case PromptRefused():
            return Refused("refused", str(error))
        case QueueFull():
            return Refused("queue_full", str(error), retry_after_seconds=error.retry_after_seconds)
        case NoEmbeddings():
            return Refused("invalid", str(error), "model")
    return Refused("failed", str(error))
