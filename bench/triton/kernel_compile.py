"""Compile launched Triton kernels ahead of time, for GPUs that are not here, and read what the compiler made of them.

NVIDIA: registers from the cubin, instructions from its disassembly (`cuobjdump` and `nvdisasm` come with Triton).
AMD: both from the assembly. Occupancy is the share of a multiprocessor's warps that registers, shared memory and the
limit on programs leave room for.
Source: CUDA C++ Programming Guide, "Compute Capabilities"; AMD Instinct MI300 ISA, "Register allocation".
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import ROOT
from bench.triton.interpreter import Launch, Pointer

TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}
OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "waves_per_eu", "enable_fp_fusion")


@dataclass(frozen=True)
class Target:
    """A GPU to compile for.

    Attributes:
        name: As in the tables.
        backend: Triton's word for the vendor.
        arch: Triton's word for the architecture.
        threads_per_warp: Threads of a warp (AMD: wavefront).
        warps: Most of them per multiprocessor (AMD: compute unit).
        registers: 32-bit registers per multiprocessor.
        shared_bytes: Shared memory per multiprocessor.
        programs: Most programs per multiprocessor.
        multiprocessors: Of the product that the name stands for.
    """

    name: str
    backend: str
    arch: int | str
    threads_per_warp: int
    warps: int
    registers: int
    shared_bytes: int
    programs: int
    multiprocessors: int

    def occupancy(self, registers: int, shared_bytes: int, warps: int) -> float:
        """The share of all warps that can be resident, for a program with this number of warps."""
        per_warp = -(-max(registers, 1) // 8) * 8 * self.threads_per_warp
        fits = [self.programs, self.warps // warps, self.registers // per_warp // warps]
        if shared_bytes:
            fits.append(self.shared_bytes // shared_bytes)
        return min(fits) * warps / self.warps


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", "cuda", 80, 32, 64, 65536, 164 << 10, 32, 108),
        Target("sm_90", "cuda", 90, 32, 64, 65536, 228 << 10, 32, 132),
        Target("sm_100", "cuda", 100, 32, 64, 65536, 228 << 10, 32, 148),
        Target("gfx942", "hip", "gfx942", 64, 32, 4 * 512 * 64, 64 << 10, 32, 304),
    )
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one launch.

    Attributes:
        registers: Per thread.
        spilled: Bytes of stack per thread on NVIDIA, spilled registers on AMD.
        shared_bytes: Per program.
        occupancy: Between 0 and 1.
        loads: Load instructions from global memory, by width in bits.
        stores: Store instructions to global memory, by width in bits.
        barriers: Barrier instructions.
        code_bytes: Size of the machine code.
    """

    registers: int
    spilled: int
    shared_bytes: int
    occupancy: float
    loads: dict[int, int]
    stores: dict[int, int]
    barriers: int
    code_bytes: int


def compile_launch(launch: Launch, target: Target) -> Compiled:
    """Compile the kernel of a launch, specialized as Triton does it at that launch.

    Raises:
        Exception: Any exception of Triton's for a kernel that doesn't compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    options = {name: value for name, value in launch.options.items() if name in OPTIONS}
    made = triton.compile(
        _source(launch), target=GPUTarget(target.backend, target.arch, target.threads_per_warp), options=options
    )
    warps, shared = made.metadata.num_warps, made.metadata.shared
    read = _read_amd if target.backend == "hip" else _read_nvidia
    facts = read(made)
    return Compiled(shared_bytes=shared, occupancy=target.occupancy(facts["registers"], shared, warps), **facts)


def _source(launch: Launch) -> Any:
    """A kernel with the types and constants of a launch, and the divisibility that Triton sees in the arguments."""
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    hints: dict[tuple[int, ...], Any] = {}
    for place, (name, value) in enumerate(launch.arguments.items()):
        divisible = False
        if isinstance(value, Pointer):
            signature[name], divisible = f"*{TYPES[value.dtype]}", value.aligned
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif isinstance(value, int) and not isinstance(value, bool) and value != 1 and name not in launch.constants:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            divisible = value % 16 == 0
        else:
            signature[name], constants[name] = "constexpr", value
        if divisible:
            hints[place,] = [["tt.divisibility", 16]]
    return ASTSource(_kernel(launch), signature, constants, hints)


def _kernel(launch: Launch) -> Any:
    """The compilable function that the interpreter ran."""
    file = Path(launch.file)
    if file.is_relative_to(ROOT):
        importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    module = next(m for m in [*sys.modules.values()] if getattr(m, "__file__", None) == launch.file)
    kernel = getattr(module, launch.kernel)
    while not hasattr(kernel, "cache_key"):  # autotuners and heuristics are wrapped around it
        kernel = kernel.fn
    return kernel


def _tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout


def _read_nvidia(made: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(made.asm["cubin"])
        usage = _tool("cuobjdump", "--dump-resource-usage", str(file))
        code = _tool("nvdisasm", "--print-code", "--print-instruction-encoding", str(file))
    registers, stack, local = (int(re.findall(rf"\b{what}:(\d+)", usage)[-1]) for what in ("REG", "STACK", "LOCAL"))
    instructions = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", code)

    def widths(operation: str) -> dict[int, int]:
        widths = (re.search(r"\.(128|64|U16|S16|U8|S8)\b", i) for i in instructions if i.split(".")[0] == operation)
        return dict(Counter(int(re.sub(r"\D", "", match[1])) if match else 32 for match in widths))

    return {
        "registers": registers,
        "spilled": stack + local,
        "loads": widths("LDG"),
        "stores": widths("STG"),
        "barriers": sum(i.startswith("BAR.SYNC") for i in instructions),
        "code_bytes": 16 * len(instructions),
    }


def _read_amd(made: Any) -> dict[str, Any]:
    code = made.asm["amdgcn"]

    def stated(name: str) -> int:
        return int(re.findall(rf"\.{name}:\s*(\d+)", code)[-1])

    def widths(operation: str) -> dict[int, int]:
        bits = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32}
        types = re.findall(rf"\b(?:global|buffer|flat)_{operation}_(\w+)", code)
        return dict(Counter(bits.get(word, 8 if "byte" in word else 16) for word in types))

    size = re.findall(r"codeLenInByte\s*=\s*(\d+)", code)
    return {
        "registers": stated("vgpr_count"),
        "spilled": stated("vgpr_spill_count") + stated("sgpr_spill_count"),
        "loads": widths("load"),
        "stores": widths("store"),
        "barriers": len(re.findall(r"\bs_barrier\b", code)),
        "code_bytes": int(size[-1]) if size else 0,
    }
