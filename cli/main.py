"""The `rustygpt` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import UsageFault

app = typer.Typer(
    name="rustygpt",
    help="A private AI chat service on local models, whose answers survive any failure.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; default rustygpt.toml here, if any."),
]


@app.command()
def serve(
    port: Annotated[int | None, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    config: ConfigFile = None,
) -> None:
    """Runs the whole service on this machine until Ctrl-C."""
    from cli.serve import serve_until_interrupted

    overrides = {key: value for key, value in {"port": port, "host": host}.items() if value is not None}
    serve_until_interrupted(config, overrides)


@app.command()
def chat(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model of llm.models, or the path of a .gguf file.")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", "-t", min=0.0, max=2.0)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
    config: ConfigFile = None,
) -> None:
    """Talks with a local model in this terminal, without a server. Nothing is stored."""
    from cli.chat import chat as run_chat

    run_chat(config, model, temperature, max_tokens, system)


@config_app.command("show")
def config_show(config: ConfigFile = None) -> None:
    """Prints the configuration in effect, secrets masked."""
    from cli.config import show

    show(config)


def run() -> None:
    """Entry point: a fault of usage is one plain line and exit code 2."""
    try:
        app()
    except UsageFault as fault:
        for line in str(fault).splitlines():
            print(f"rustygpt: {line}", file=sys.stderr)
        sys.exit(2)
