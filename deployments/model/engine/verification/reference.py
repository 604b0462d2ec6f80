"""What a model's right answers are: computed once by the plainest way there is, with the least code made for one
processor, and kept. Those of the bundled model come with the product:

    python -m deployments.model.engine.verification.reference MODEL

writes them anew, for another version of llama.cpp or of the prompts, on a machine that is known to compute right.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deployments.model.engine.model_file import digest
from deployments.model.engine.verification import answers
from deployments.model.engine.verification.answers import Answer
from deployments.model.engine.verification.checker import Task, check
from deployments.model.engine.verification.run_config import Capabilities, RunConfig, plainest

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("references")


@dataclass(frozen=True)
class Reference:
    """The answers, and by what they were computed. None: there are none, and `source` says why."""

    answers: list[Answer] | None
    source: str


class References:
    """Those of a folder, by the model's bytes, its adapters, and the version of llama.cpp's bindings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, task: Task, capabilities: Capabilities) -> Reference:
        """The reference of a model, computed now if it has not been. Raises ModelFileError."""
        name = _name(task)
        for file in (SHIPPED / name, self._folder / name):
            if found := _read(file):
                return found
        config = plainest(capabilities)
        logger.info("computing the reference answers of %s, %s: once a model", task.model.name, config)
        checked = check(Task(task.model, _essential(task)), config)
        if checked.answers is None:
            return Reference(None, f"the plainest way to run it failed: {checked.fault}")
        source = f"{config.cpu_variant or 'llama.cpp'} {version('llama-cpp-python')}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write(self._folder / name, checked.answers, source)
        except OSError as error:
            logger.warning("the reference answers of %s cannot be kept: %s", task.model.name, error)
        return Reference(checked.answers, source)


def write(file: Path, found: list[Answer], source: str) -> None:
    """As a whole or not at all. Raises OSError."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"source": source, "answers": answers.to_json(found)}))
    part.replace(file)


def _read(file: Path) -> Reference | None:
    try:
        found = json.loads(file.read_text())
        return Reference(answers.from_json(found["answers"]), found["source"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("the reference answers in %s cannot be used and are computed again: %s", file, error)
        return None


def _name(task: Task) -> str:
    parts = [digest(task.model), *(f"{digest(Path(path))}x{scale}" for path, scale in task.options.get("lora", ()))]
    return f"reference-{'-'.join(parts)}-{version('llama-cpp-python')}-{answers.VERSION}.json"


def main() -> None:
    """Ends with 1 and the reason when the model cannot be run."""
    task = Task(Path(sys.argv[1]), {})
    capabilities = check(task, RunConfig()).capabilities or Capabilities()
    made = References(SHIPPED).obtain(task, capabilities)
    if made.answers is None:
        sys.exit(made.source)


def _essential(task: Task) -> dict[str, Any]:
    """Of the options, those that change what the answers are."""
    return {"lora": task.options.get("lora", ())}


if __name__ == "__main__":
    main()
