#!/usr/bin/env bash
# Installs LiteLLM's proxy, which load/api_bench.py measures the API against, in an environment of its own.
#
#   load/install_litellm.sh FOLDER [PYTHON]
#
# FOLDER is the one that load/build_rivals.sh fills, outside the repository; the program is FOLDER/litellm/bin/litellm.
# The version is pinned here (later ones ask for parts that were not published), its dependencies are what it asks for.
set -euo pipefail

folder=${1:?usage: load/install_litellm.sh FOLDER [PYTHON]}
python=${2:-python3}
version=1.98.1

"$python" -m venv "$folder/litellm"
"$folder/litellm/bin/python" -m pip --disable-pip-version-check --no-input install --quiet "litellm[proxy]==$version"
echo "installed $folder/litellm/bin/litellm $version"
