"""`rustygpt config show`, and the configuration for the other commands."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from cli.errors import UsageFault
from deployments.config import ConfigError, Settings, config_file, home, load_settings


def read(path: Path | None) -> Settings:
    """The settings; a file given on the command line counts for child processes, too. Raises UsageFault."""
    if path is not None:
        os.environ["RUSTYGPT_CONFIG"] = str(path.absolute())
    try:
        return load_settings()
    except ConfigError as error:
        raise UsageFault(str(error)) from None


def show(path: Path | None) -> None:
    """Prints the tree as YAML; secrets show as stars."""
    settings = read(path)
    print(f"# file: {config_file() or 'none'}")
    print(f"# home: {home()}")
    print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
