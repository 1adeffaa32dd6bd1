"""Compile kernels to machine code without a GPU, and read the machine code.

Numba writes PTX for a compute capability, NVIDIA's ``ptxas`` assembles it and reports registers, shared memory and
spills, and ``nvdisasm`` prints the instructions. This needs the packages numba-cuda[cu13], nvidia-cuda-nvcc and
nvidia-cuda-nvdisasm, but no driver and no device. The results are exact, since a GPU would run the same code, and say
nothing about time.

Each architecture gets PTX of its own, as on a machine that has such a GPU: from 9.0 up for the architecture-specific
target (``compute_90a``), as numba-cuda itself does there.
"""

from __future__ import annotations

import collections
import re
import shutil
import struct
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpuprop.measure.bench.variants import Variant

__all__ = ["ARCHITECTURES", "Capability", "Report", "analyse", "blocks_per_multiprocessor", "missing_tools", "versions"]

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

_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;")
_TARGET = re.compile(r"0x([0-9a-f]+)$")
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
    """The machine code of one kernel on one architecture, in figures."""

    family: str
    option: str
    tile: str
    dtype: str
    threads: int
    capability: Capability
    registers: int
    shared: int
    stack: int
    spilled: int
    """Bytes spilled, stores and loads together."""
    loop: dict[str, int]
    """Instructions of the innermost loop with the most multiply-adds (the longest of several), counted by name."""
    total: dict[str, int]
    """Instructions of the whole kernel, counted by name."""

    @property
    def kernel(self) -> str:
        """The kernel in words."""
        return " ".join(part for part in (self.family, self.tile, self.option, self.dtype) if part)

    @property
    def name(self) -> str:
        """The kernel and the architecture, for tables."""
        return f"{self.kernel} for sm_{self.capability[0]}{self.capability[1]}"

    @property
    def fma_fraction(self) -> float:
        """Share of fused multiply-adds among the instructions of the inner loop."""
        return _fused(self.loop) / max(1, sum(self.loop.values()))

    @property
    def tensor_fraction(self) -> float:
        """Share of the instructions of tensor cores among those of the inner loop."""
        return _tensor(self.loop) / max(1, sum(self.loop.values()))

    @property
    def float64(self) -> int:
        """Number of float64 instructions in the whole kernel."""
        return sum(n for op, n in self.total.items() if op.startswith(_FLOAT64))

    @property
    def local(self) -> int:
        """Number of accesses to local memory."""
        return sum(n for op, n in self.total.items() if op.startswith(("LDL", "STL")))

    @property
    def occupancy(self) -> int:
        """Number of blocks that fit on a multiprocessor."""
        return blocks_per_multiprocessor(self.capability, self.threads, self.registers, self.shared)

    def loads(self, memory: str) -> dict[str, int]:
        """Return the loop's loads from ``"LDS"`` (shared) or ``"LDG"`` (global) memory by instruction."""
        return {op: n for op, n in self.loop.items() if op.startswith(memory)}


class _Code(NamedTuple):
    """An assembled kernel."""

    said: str
    """The assembler's report."""
    text: bytes
    """The instructions."""


def _tool(name: str) -> str | None:
    packaged = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin" / name
    return str(packaged) if packaged.exists() else shutil.which(name)


def missing_tools() -> str | None:
    """Return what is missing for compiling without a GPU, or None."""
    try:
        import numba.cuda.cudadrv.nvvm  # noqa: F401
        from numba.cuda.np import arrayobj  # noqa: F401
    except ImportError:
        return "numba-cuda is not installed"
    for name in ("ptxas", "nvdisasm"):
        if _tool(name) is None:
            return f"{name} is not installed; pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm"
    return None


def versions() -> str:
    """Return the versions of all tools that make the machine code."""
    from importlib.metadata import version

    packages = [f"{name} {version(name)}" for name in ("numba", "numba-cuda", "llvmlite", "nvidia-nvvm")]
    return "\n".join([*packages, *(_run(name, "--version").stdout for name in ("ptxas", "nvdisasm"))])


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(_tool(name)), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return done


def _target(capability: Capability) -> str:
    major, minor = capability
    return f"{major}{minor}{'a' if capability >= (9, 0) else ''}"


def _assemble(variant: Variant, capability: Capability) -> _Code:
    from gpuprop_kernels.target.without_device import ptx

    with tempfile.TemporaryDirectory() as folder:
        source, image = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx(variant.kernel, variant.signature, capability))
        said = _run("ptxas", "-v", "-O3", "-arch", f"sm_{_target(capability)}", str(source), "-o", str(image)).stderr
        return _Code(said, _text_section(image.read_bytes()))


def _text_section(image: bytes) -> bytes:
    """Return the instructions of the one kernel in an ELF image (64 bits, little-endian)."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    # Of a section header: where its name begins among the names, and offset and size of its content.
    headers = [struct.unpack_from("<I20xQQ", image, table + i * size) for i in range(count)]
    for name, offset, length in headers:
        if image.startswith(b".text.", headers[names][1] + name):
            return image[offset : offset + length]
    raise RuntimeError("the assembled image has no code")


def _disassemble(codes: Sequence[bytes], capability: Capability) -> Iterator[list[tuple[int, str]]]:
    """Yield the instructions of each code, with their addresses.

    All go through one call: ``nvdisasm`` takes half a second to start and a few hundredths for a kernel.
    """
    with tempfile.NamedTemporaryFile() as image:
        image.write(b"".join(codes))
        image.flush()
        listing = _run("nvdisasm", "-ndf", "-b", f"SM{_target(capability)}", image.name).stdout
    found = (_INSTRUCTION.match(line) for line in listing.splitlines())
    instructions = collections.deque((int(m[1], 16), m[2]) for m in found if m)
    end = 0
    for code in codes:
        end += len(code)
        part = []
        while instructions and instructions[0][0] < end:
            part.append(instructions.popleft())
        yield part


def _names(instructions: Iterable[tuple[int, str]]) -> dict[str, int]:
    return dict(collections.Counter(text.split()[0] for _, text in instructions))


def _weight(names: dict[str, int]) -> int:
    """Return how much a loop multiplies: on tensor cores, or in a kernel without them by fused multiply-adds."""
    return _fused(names) + 1000 * _tensor(names)


def _fused(names: dict[str, int]) -> int:
    return sum(n for op, n in names.items() if op.startswith(("FFMA", "DFMA")))


def _tensor(names: dict[str, int]) -> int:
    return sum(n for op, n in names.items() if op.startswith("HMMA"))


def _inner_loop(instructions: list[tuple[int, str]]) -> dict[str, int]:
    """Return the instruction counts of the innermost loop with the most multiply-adds; the longest of several.

    A gradient's kernel has two such loops: one for a layer whose rows are gathered, and one for the others.
    """
    places = {address: place for place, (address, _) in enumerate(instructions)}
    loops = []
    for end, (_, text) in enumerate(instructions):
        target = _TARGET.search(text) if text.startswith("BRA") else None
        begin = places.get(int(target[1], 16), end) if target else end
        if begin < end:
            loops.append((begin, end, _names(instructions[begin : end + 1])))
    most = max((_weight(names) for _, _, names in loops), default=0)
    best = [loop for loop in loops if _weight(loop[2]) == most]
    innermost = [
        names
        for begin, end, names in best
        if not any(begin <= other[0] and other[1] <= end and (begin, end) != other[:2] for other in best)
    ]
    return max(innermost, key=lambda names: sum(names.values()), default={})


def analyse(jobs: Sequence[tuple[Variant, Capability]]) -> list[Report]:
    """Compile kernels, each for an architecture, and report on the machine code, in the same order."""
    codes = [_assemble(*job) for job in jobs]
    reports: dict[int, Report] = {}
    for capability in {capability for _, capability in jobs}:
        places = [place for place, job in enumerate(jobs) if job[1] == capability]
        listings = _disassemble([codes[place].text for place in places], capability)
        for place, listing in zip(places, listings, strict=True):
            reports[place] = _report(jobs[place][0], capability, codes[place].said, listing)
    return [reports[place] for place in range(len(jobs))]


def _report(variant: Variant, capability: Capability, said: str, listing: list[tuple[int, str]]) -> Report:
    def number(pattern: str) -> int:
        return sum(int(n) for n in re.findall(pattern, said))

    return Report(
        variant.family,
        variant.option,
        variant.tile,
        variant.dtype,
        variant.threads,
        capability,
        registers=number(r"Used (\d+) registers"),
        shared=number(r"(\d+) bytes smem"),
        stack=number(r"(\d+) bytes stack frame"),
        spilled=number(r"(\d+) bytes spill (?:stores|loads)"),
        loop=_inner_loop(listing),
        total=_names(listing),
    )


def blocks_per_multiprocessor(capability: Capability, threads: int, registers: int, shared: int) -> int:
    """Return how many blocks fit on one multiprocessor: registers come in units of 256 a warp, warps in fours."""
    most_threads, most_blocks, memory, reserved = _LIMITS[capability]
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // per_warp // 4 * 4 // warps
    by_memory = memory * 1024 // max(1, shared + reserved * 1024)
    return min(by_registers, most_threads // (warps * 32), by_memory, most_blocks)
