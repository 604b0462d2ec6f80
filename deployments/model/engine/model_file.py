"""A GGUF file on disk: checked before llama.cpp sees it, and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Any

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import ModelFileError

logger = logging.getLogger(__name__)

GGML_LOG_LEVEL_ERROR = 4
DIGEST_BYTES = 1 << 20
last_errors: list[str] = []


@cache
def _start_backend() -> Any:
    """Once a process, before the first model: what llama.cpp logs as errors goes to `last_errors`, the rest nowhere.
    What it returns must live as long as the process."""

    @llama.llama_log_callback
    def log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        if level >= GGML_LOG_LEVEL_ERROR:
            last_errors[:] = [*last_errors[-4:], text.decode("utf-8", "replace").strip()]

    llama.llama_log_set(log, ctypes.c_void_p(0))
    llama.llama_backend_init()
    return log


def check_model_file(path: Path) -> None:
    """Raises ModelFileError when `path` is no GGUF model that llama.cpp can load: missing, a folder, unreadable,
    of another format, damaged or cut off. Reads the file's head only."""
    read_metadata(path)


def read_metadata(path: Path) -> dict[str, str]:
    """All that a GGUF file says of itself, read without its weights. Raises ModelFileError as `check_model_file`."""
    check_magic(path)
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = _load(path, params)
    try:
        places = range(llama.llama_model_meta_count(model))
        return {_text(llama.llama_model_meta_key_by_index, model, i): _value(model, i) for i in places}
    finally:
        llama.llama_model_free(model)


def load_model(path: Path, n_gpu_layers: int, mapped: bool = True, repack: bool = True) -> ctypes.c_void_p:
    """Loads the weights: the file is mapped, so that processes share its memory, or read. Raises ModelFileError with
    llama.cpp's reason."""
    check_magic(path)
    params = llama.llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.use_extra_bufts = repack
    if not mapped:
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE
    return _load(path, params)


def check_magic(path: Path) -> None:
    """Raises ModelFileError when `path` is no GGUF file, without loading llama.cpp."""
    if not path.exists():
        raise ModelFileError(f"model file {path} does not exist")
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; give the path of a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelFileError(f"model file {path} cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise ModelFileError(f"{path} is not a GGUF file (it does not begin with the letters GGUF)")


def _load(path: Path, params: Any) -> ctypes.c_void_p:
    _start_backend()
    last_errors.clear()
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        # The first message names the cause; those after it say only that loading failed.
        reason = last_errors[0] if last_errors else "unknown reason"
        raise ModelFileError(f"model file {path} cannot be loaded: {reason}")
    return model


def digest(path: Path) -> str:
    """Tells files apart by their size, their first and their last MiB, without reading all of a large one. Raises
    OSError."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        found.update(file.read(DIGEST_BYTES))
        file.seek(max(0, size - DIGEST_BYTES))
        found.update(file.read(DIGEST_BYTES))
    return found.hexdigest()[:16]


def metadata(model: ctypes.c_void_p, key: str) -> str | None:
    """A string of the file's metadata, or None."""
    try:
        return _text(llama.llama_model_meta_val_str, model, key.encode())
    except KeyError:
        return None


def _value(model: ctypes.c_void_p, place: int) -> str:
    return _text(llama.llama_model_meta_val_str_by_index, model, place)


def _text(read: Any, model: ctypes.c_void_p, key: bytes | int) -> str:
    size = read(model, key, None, 0)
    if size < 0:
        raise KeyError(key)
    buffer = ctypes.create_string_buffer(size + 1)
    read(model, key, buffer, size + 1)
    return buffer.value.decode("utf-8", "replace")
