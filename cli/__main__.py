"""`python -m cli` is `rustygpt`."""

from cli.main import run

run()
