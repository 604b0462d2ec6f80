"""Writes the serve configuration into rayservice.yaml, so that the cluster runs what serve_config.yaml says.

`python -m k8s.render` rewrites the manifest; with `--check` it writes nothing and exits with 1 when it is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

MANIFEST = Path(__file__).parent / "rayservice.yaml"
SERVE_CONFIG = Path(__file__).parents[1] / "serve_config.yaml"
KEY = "  serveConfigV2: |\n"
INDENT = " " * 4
# In a pod the proxy must be reached from other pods; on one machine it listens on loopback.
POD_HOST = "0.0.0.0"  # noqa: S104


def rendered(manifest: str, serve_config: str) -> str:
    """The manifest with this serve configuration in it. Everything else stays as it is, comments too."""
    config = yaml.safe_load(serve_config)
    config["http_options"]["host"] = POD_HOST
    text = yaml.safe_dump(config, sort_keys=False)
    before, found, rest = manifest.partition(KEY)
    if not found:
        raise ValueError(f"the manifest has no line {KEY.strip()!r}")
    after = rest.splitlines(keepends=True)
    while after and (after[0].startswith(INDENT) or not after[0].strip()):
        del after[0]
    return before + KEY + "".join(f"{INDENT}{line}\n" for line in text.splitlines()) + "".join(after)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when the manifest is current, or was made so."""
    parser = argparse.ArgumentParser(prog="python -m k8s.render", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when it is stale")
    check: bool = parser.parse_args(arguments).check
    manifest = MANIFEST.read_text()
    wanted = rendered(manifest, SERVE_CONFIG.read_text())
    if check and wanted != manifest:
        sys.stderr.write(f"{MANIFEST.name} is stale: run `python -m k8s.render`\n")
        return 1
    if wanted != manifest:
        MANIFEST.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
