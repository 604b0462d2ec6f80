#!/usr/bin/env bash
# Builds llama.cpp's own llama-server and llama-batched-bench: what load/engine_bench.py measures the engine against.
#
#   load/build_rivals.sh FOLDER [PYTHON]
#
# The source is the one that the pinned llama-cpp-python carries in its sdist, built as that package builds it
# (Release, for this machine's processor). Everything is written to FOLDER, outside the repository; the programs are
# FOLDER/bin/llama-server and FOLDER/bin/llama-batched-bench. Takes about ten minutes on two cores.
set -euo pipefail

folder=${1:?usage: load/build_rivals.sh FOLDER [PYTHON]}
python=$(command -v "${2:-python3}")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
root=$(cd "$(dirname "$0")/.." && pwd)
pin=$(grep -i '^llama.cpp.python==' "$root/constraints.txt")

mkdir -p "$folder"
cd "$folder"
if [ ! -d source ]; then
  "$python" -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation --dest sdist "$pin" 2>/dev/null \
    || "$python" -m pip download --quiet --no-deps --no-binary :all: --dest sdist "$pin"
  mkdir -p source.part
  tar -xzf sdist/llama_cpp_python-*.tar.gz -C source.part --strip-components=1
  mv source.part source
fi
cmake -S source/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF >cmake.log
cmake --build build --target llama-server llama-batched-bench -j "$(nproc)" >build.log
mkdir -p bin
cp build/bin/llama-server build/bin/llama-batched-bench bin/
echo "built $folder/bin/llama-server and $folder/bin/llama-batched-bench"
