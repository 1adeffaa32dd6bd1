"""Compile kernels to machine code without a GPU, and read what came out.

Numba writes PTX for a compute capability, NVIDIA's ``ptxas`` assembles it and reports registers, shared memory and
spills, ``nvdisasm`` prints the instructions. Needs the packages numba-cuda[cu13], nvidia-cuda-nvcc and
nvidia-cuda-nvdisasm; no driver, no device. What is learnt is exact (it is the code a GPU would run) and says nothing
about time.
"""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ARCHITECTURES", "Report", "analyse", "blocks_per_multiprocessor", "missing_tools"]

Capability = tuple[int, int]

ARCHITECTURES: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))

# Per multiprocessor: threads, blocks, shared memory in KiB, KiB of it that each block costs beside its own.
# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; 64 Ki registers everywhere.
_LIMITS: dict[Capability, tuple[int, int, int, int]] = {
    (7, 5): (1024, 16, 64, 0),
    (8, 0): (2048, 32, 164, 1),
    (8, 6): (1536, 16, 100, 1),
    (8, 9): (1536, 24, 100, 1),
    (9, 0): (2048, 32, 228, 1),
    (10, 0): (2048, 32, 228, 1),
    (12, 0): (1536, 24, 100, 1),
}

_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_\w+):")
_FLOAT64 = (
    "DFMA",
    "DADD",
    "DMUL",
    "DSETP",
    "DMNMX",
    "MUFU.RCP64H",
    "MUFU.RSQ64H",
    "F2F.F64",
    "F2F.F32.F64",
    "I2F.F64",
)


@dataclass(frozen=True)
class Report:
    """What one kernel compiled to for one architecture."""

    name: str
    capability: Capability
    threads: int
    registers: int
    shared: int
    stack: int
    spilled: int
    """Bytes spilled, stores and loads together."""
    loop: dict[str, int]
    """Instructions of the innermost loop with the most multiply-adds, counted by name."""
    total: dict[str, int]

    @property
    def fma_fraction(self) -> float:
        """Share of fused multiply-adds among the instructions of the inner loop."""
        fused = sum(n for op, n in self.loop.items() if op.startswith(("FFMA", "DFMA")))
        return fused / max(1, sum(self.loop.values()))

    @property
    def float64(self) -> int:
        """Float64 instructions in the whole kernel."""
        return sum(n for op, n in self.total.items() if op.startswith(_FLOAT64))

    @property
    def local(self) -> int:
        """Accesses to local memory."""
        return sum(n for op, n in self.total.items() if op.startswith(("LDL", "STL")))

    @property
    def occupancy(self) -> int:
        """Blocks that fit a multiprocessor."""
        return blocks_per_multiprocessor(self.capability, self.threads, self.registers, self.shared)

    def loads(self, memory: str) -> dict[str, int]:
        """Return the loop's loads from ``"LDS"`` (shared) or ``"LDG"`` (global) memory by instruction."""
        return {op: n for op, n in self.loop.items() if op.startswith(memory)}


def _folder() -> Path:
    return Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"


def missing_tools() -> str:
    """Return what is missing for compiling without a GPU, or ``""``."""
    try:
        import numba.cuda.cudadrv.nvvm  # noqa: F401
        from numba.cuda.np import arrayobj  # noqa: F401
    except ImportError:
        return "numba-cuda is not installed"
    for tool in ("ptxas", "nvdisasm"):
        if not (_folder() / tool).exists() and shutil.which(tool) is None:
            return f"{tool} is not installed; pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm"
    return ""


def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = _folder() / tool
    command = [str(path) if path.exists() else tool, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr.strip()}")
    return done


class _Device:
    """Stands in for the driver's device, which Numba asks for its capability when it inlines a device function."""

    compute_capability: Capability = (9, 0)


def _ptx(kernel: Any, signature: tuple[Any, ...], capability: Capability) -> str:
    from numba import cuda
    from numba.cuda import dispatcher

    _Device.compute_capability = capability
    original = dispatcher.get_current_device
    dispatcher.get_current_device = _Device
    try:
        bounds = kernel.targetoptions.get("launch_bounds")
        options = {"launch_bounds": bounds} if bounds else {}
        text, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability, **options)
    finally:
        dispatcher.get_current_device = original
    return str(text)


def _instructions(text: str) -> tuple[list[str], dict[str, int]]:
    """Return the instructions and, for each label, the index of the one behind it."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif found := _INSTRUCTION.match(line):
            instructions.append(found[1])
    return instructions, labels


def _names(instructions: list[str]) -> dict[str, int]:
    return dict(collections.Counter(i.split()[0] for i in instructions))


def _inner_loop(instructions: list[str], labels: dict[str, int]) -> dict[str, int]:
    """Return the instruction counts of the backward branch's body with the most multiply-adds, the smallest such."""
    best: dict[str, int] = {}
    rank = (-1, 0)
    for end, instruction in enumerate(instructions):
        target = re.search(r"(\.L_\w+)", instruction) if instruction.startswith("BRA") else None
        if target is None or labels.get(target[1], end + 1) > end:
            continue
        names = _names(instructions[labels[target[1]] : end + 1])
        fused = sum(n for op, n in names.items() if op.startswith(("FFMA", "DFMA")))
        if (fused, -sum(names.values())) > rank:
            best, rank = names, (fused, -sum(names.values()))
    return best


def analyse(name: str, kernel: Any, signature: tuple[Any, ...], threads: int, capability: Capability) -> Report:
    """Compile one kernel for one architecture and report on the machine code.

    Parameters
    ----------
    name : str
        For the report.
    kernel : numba.cuda dispatcher
        What a kernel factory returned.
    signature : tuple of numba types
    threads : int
        Threads of a block, for the occupancy.
    capability : tuple of int
        For example (8, 6).
    """
    ptx = _ptx(kernel, signature, capability)
    with tempfile.TemporaryDirectory() as folder:
        source, image = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        arch = f"sm_{capability[0]}{capability[1]}"
        said = _run("ptxas", "-v", "-O3", "-arch", arch, str(source), "-o", str(image)).stderr
        listing = _run("nvdisasm", "-c", str(image)).stdout
    instructions, labels = _instructions(listing)

    def number(pattern: str) -> int:
        return sum(int(n) for n in re.findall(pattern, said))

    return Report(
        name,
        capability,
        threads,
        registers=number(r"Used (\d+) registers"),
        shared=number(r"(\d+) bytes smem"),
        stack=number(r"(\d+) bytes stack frame"),
        spilled=number(r"(\d+) bytes spill (?:stores|loads)"),
        loop=_inner_loop(instructions, labels),
        total=_names(instructions),
    )


def blocks_per_multiprocessor(capability: Capability, threads: int, registers: int, shared: int) -> int:
    """Return how many blocks fit one multiprocessor: registers come in units of 256 a warp, warps in fours."""
    most_threads, most_blocks, memory, reserved = _LIMITS[capability]
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // per_warp // 4 * 4 // warps
    by_memory = memory * 1024 // max(1, shared + reserved * 1024)
    return min(by_registers, most_threads // (warps * 32), by_memory, most_blocks)
