"""`rustygpt chat`: a conversation with a local model in the terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from uuid import uuid4

from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console

from cli.config import read
from cli.errors import UsageFault
from deployments.config import ConfigError, Llm, Model
from deployments.model.engine import Engine, EngineError, Finish, GenerationRequest, PromptTooLong
from deployments.model.loading import Loader

LEAVE = {"exit", "quit", "q", "/exit", "/quit"}
Message = dict[str, str]


def chat(
    config: Path | None,
    name: str | None,
    temperature: float | None,
    max_tokens: int | None,
    system: str | None,
) -> None:
    """Returns when the person leaves. Raises UsageFault."""
    llm, model = _model(config, name)
    changes = {"temperature": temperature, "max_tokens": max_tokens, "system_prompt": system}
    model = model.model_copy(update={key: value for key, value in changes.items() if value is not None})
    console = Console(highlight=False)
    try:
        with console.status("Loading the model …") as status:
            alone = model.model_copy(update={"max_slots": 1})
            loaded = Loader(llm, alone, uuid4().hex, say=lambda step: status.update(f"{step.capitalize()} …")).load()
    except (EngineError, ConfigError) as error:
        raise UsageFault(str(error)) from None
    engine = loaded.engine
    if loaded.verified.config.given_up():
        console.print(f"[yellow]The model runs {loaded.verified.config} on this machine.[/yellow]")
    console.print(
        f"[bold]{engine.model_name}[/bold]. Type a message; exit, quit or Ctrl-D leaves, Ctrl-C stops an answer."
    )
    try:
        asyncio.run(_talk(engine, model, console))
    finally:
        engine.close()


def _model(config: Path | None, name: str | None) -> tuple[Llm, Model]:
    llm = read(config).llm
    wanted = name or llm.default_model
    if wanted in llm.models:
        return llm, llm.models[wanted]
    if wanted.endswith(".gguf") or "/" in wanted:
        return llm, Model(path=wanted)
    known = ", ".join(sorted(llm.models))
    raise UsageFault(f"there is no model {wanted!r} in llm.models ({known}); give one of these or a .gguf file")


async def _talk(engine: Engine, model: Model, console: Console) -> None:
    history: list[Message] = [{"role": "system", "content": model.system_prompt}] if model.system_prompt else []
    prompt = PromptSession[str]() if sys.stdin.isatty() else None
    while True:
        text = await _read(prompt)
        if text is None or text.lower() in LEAVE:
            return
        if not text:
            continue
        asked: list[Message] = [*history, {"role": "user", "content": text}]
        try:
            answer = await _answer(engine, model, asked, console)
        except PromptTooLong as error:
            console.print(f"[red]The conversation has become too long ({error}). Start anew.[/red]")
            continue
        except EngineError as error:
            console.print(f"[red]{error}[/red]")
            continue
        history = [*asked, {"role": "assistant", "content": answer}]


async def _read(prompt: PromptSession[str] | None) -> str | None:
    """One line without spaces around it; None at the end of input."""
    try:
        if prompt is None:
            line = await asyncio.to_thread(sys.stdin.readline)
            return line.strip() if line else None
        with patch_stdout():
            return (await prompt.prompt_async("> ")).strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        return ""


async def _answer(engine: Engine, model: Model, messages: list[Message], console: Console) -> str:
    request = GenerationRequest(
        prompt_token_ids=tuple(engine.render_chat(messages)),
        max_tokens=model.max_tokens,
        temperature=model.temperature,
        top_p=model.top_p,
        top_k=model.top_k,
        repeat_penalty=model.repeat_penalty,
    )
    generation = engine.generate(request)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(2, generation.cancel)
    started = time.perf_counter()
    first = 0.0
    parts: list[str] = []
    try:
        async for item in generation:
            if isinstance(item, Finish):
                seconds = time.perf_counter() - started
                console.print(
                    f"\n[dim]{item.completion_tokens} tokens, {item.completion_tokens / seconds:.0f} a second, "
                    f"first after {first:.2f} s, {item.cached_tokens} of {item.prompt_tokens} prompt tokens reused"
                    f"{'' if item.reason == 'stop' else f', {item.reason}'}[/dim]"
                )
                break
            first = first or time.perf_counter() - started
            parts.append(item.text)
            console.out(item.text, end="", highlight=False)
    finally:
        loop.remove_signal_handler(2)
    return "".join(parts)
