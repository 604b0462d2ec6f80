"""How a model is run on this machine, and what can be given up where that does not work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Without AVX-512, without AVX2, without AVX: what a processor is made to compute by when its best is at fault.
PLAINER = ("haswell", "ivybridge", "sandybridge", "x64")
# What the reference is computed by: the fastest of those that have little in common with the best, where there is one.
PLAINEST = ("ivybridge", "sandybridge", "x64", "haswell")


@dataclass(frozen=True)
class Capabilities:
    """What a process found that it could choose from: whether the engine's own kernels run here, and the CPU variants
    of llama.cpp that do, the best first."""

    own_kernels: bool = False
    cpu_variants: Sequence[str] = ()

    def others(self, wanted: Sequence[str]) -> list[str]:
        """Of the wanted variants, those that run here beside the best."""
        return [name for name in wanted if name in self.cpu_variants[1:]]


@dataclass(frozen=True)
class RunConfig:
    """A way to run a model. The default gives nothing up.

    `cpu_variant` None: the best. `repack`: weights may lie in the layout that AMX and other kernels read.
    `small_batches`: a row at a time. `gpu`: layers are put on a GPU, where there is one.
    """

    own_kernels: bool = True
    cpu_variant: str | None = None
    repack: bool = True
    flash_attention: bool = True
    small_batches: bool = False
    gpu: bool = True

    def options(self) -> dict[str, Any]:
        """The engine's options that it changes."""
        changed: dict[str, Any] = {}
        if not self.repack:
            changed["repack"] = False
        if not self.flash_attention:
            changed["flash_attention"] = False
        if self.small_batches:
            changed |= {"n_ubatch": 1}
        if not self.gpu:
            changed["n_gpu_layers"] = 0
        return changed

    def given_up(self) -> list[str]:
        """What it does without, in words; [] for nothing."""
        found = {
            "the engine's own kernels": self.own_kernels,
            f"llama.cpp's best CPU variant ({self.cpu_variant} computes)": self.cpu_variant is None,
            "weights in the layout of AMX and other kernels": self.repack,
            "flash attention": self.flash_attention,
            "batches: each row is computed alone": not self.small_batches,
            "the GPU": self.gpu,
        }
        return [what for what, is_kept in found.items() if not is_kept]

    def choices(self) -> dict[str, Any]:
        """What measurements of the model have to keep to (autotune.py)."""
        return {"own_kernels": self.own_kernels, "cpu_variant": self.cpu_variant, "options": self.options()}

    def __str__(self) -> str:
        return f"without {', '.join(self.given_up())}" if self.given_up() else "as it is"

    def to_json(self) -> dict[str, Any]:
        """What differs from the default."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


def ladder(capabilities: Capabilities, uses_gpu: bool) -> Iterator[RunConfig]:
    """Ways to run a model, in the order to try them: as it is; with one thing given up; with ever more given up."""
    yield RunConfig()
    steps: list[dict[str, Any]] = []
    if capabilities.own_kernels:
        steps.append({"own_kernels": False})
    steps.append({"repack": False})
    steps += [{"cpu_variant": variant} for variant in capabilities.others(PLAINER)]
    steps += [{"flash_attention": False}, {"small_batches": True}]
    if uses_gpu:
        steps.append({"gpu": False})
    for step in steps:
        yield RunConfig(**step)
    given_up: dict[str, Any] = {}
    for number, step in enumerate(steps):
        given_up |= step
        if number > 0:
            yield RunConfig(**given_up)


def plainest(capabilities: Capabilities) -> RunConfig:
    """The way with the least of code made for one processor: what others are compared with."""
    return RunConfig(
        own_kernels=False,
        cpu_variant=next(iter(capabilities.others(PLAINEST)), None),
        repack=False,
        flash_attention=False,
        gpu=False,
    )
