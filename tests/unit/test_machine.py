"""README's table "Where it was run" and tools/machine.py, which prints its rows, go together."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "machine.py"


@pytest.fixture(scope="module")
def machine() -> ModuleType:
    """The script as a module. Its folder is no package: it would be taken for the one of that name in PyPI."""
    spec = importlib.util.spec_from_file_location("machine", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_of_readme_has_a_cell_for_each_column(machine: ModuleType) -> None:
    rows = machine.table((ROOT / "README.md").read_text())
    assert rows
    for row in rows:
        assert len(row) == len(machine.COLUMNS), row
        assert all(row), row


def test_this_machines_row_has_readmes_columns(machine: ModuleType) -> None:
    row = machine.row("`make test`")
    assert machine.table(machine.line_of(list(machine.COLUMNS)) + "\n|---|\n" + machine.line_of(row)) == [row]
    assert re.fullmatch(r"\d+ \w+ 20\d\d", row[machine.COLUMNS.index("Date")])


def test_script_prints_the_row_last(machine: ModuleType) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "a try"], capture_output=True, text=True, check=True)
    says, row = done.stdout.splitlines()
    assert says.startswith("README's table of machines ")
    assert row == machine.line_of(machine.row("a try"))


def test_a_readme_without_the_table_is_an_error(machine: ModuleType) -> None:
    with pytest.raises(ValueError, match="no table with the head"):
        machine.table("# RustyGPT\n")
