"""What README and docs say is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.embedded import EmbeddedPostgres
from deployments.config import Settings
from tests.support.product import Product

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fresh_product() -> Iterator[Product]:
    folder = Path(tempfile.mkdtemp(prefix="rgpt-test-"))
    folder.chmod(0o755)
    product = Product(folder / "home")
    product.start()
    yield product
    product.stop()
    EmbeddedPostgres(folder / "home" / "postgres").stop()
    shutil.rmtree(folder)


@pytest.mark.usefixtures("curl_program")
def test_curl_walk_shows_a_whole_answer(fresh_product: Product) -> None:
    readme = (ROOT / "README.md").read_text()
    walk = "\n".join(re.findall(r"```bash\n(.*?)```", readme, re.DOTALL))
    result = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", walk],
        env=os.environ | {"URL": fresh_product.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    ids = [int(found) for found in re.findall(r"^id: (\d+)\nevent:", result.stdout, re.MULTILINE)]
    first_end = ids.index(max(ids)) + 1
    whole, rest = ids[:first_end], ids[first_end:]
    assert whole == list(range(whole[0], whole[-1] + 1))
    assert rest == whole[3:]
    assert result.stdout.count("event: message.done") == 2


def test_every_setting_is_described() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    for section, keys in Settings().model_dump().items():
        for key, value in keys.items():
            # `backpressure` is a section in a section; the entries of llm.models have tables of their own.
            names = [f"{key}.{inner}" for inner in value] if key == "backpressure" else [key]
            for name in names:
                assert f"`{section}.{name}`" in page, f"{section}.{name}"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
