"""How a pass over a batch is divided into tiles and programs, and when one program per channel group is enough.

Rule of the form: a training call is *resident* (one launch each way) where all values of a channel group, a channel
in planes or 32 bytes (on AMD 64) of neighboring channels in rows, fit into 64 KiB of registers of one program; else
it is *split* (two launches each way). Evaluation takes one launch forward.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kernels.triton_fused.device.case import Case
from kernels.triton_fused.launch import Launch

RESIDENT_BYTES = 65536


class Machine(NamedTuple):
    """What a division into programs depends on."""

    multiprocessors: int
    threads_per_warp: int
    name: str = ""


class Choice(NamedTuple):
    """What is tuned by measurement in the split form: warps of a program, and programs per multiprocessor."""

    warps: int = 8
    programs: int = 4


TABLE = Path(__file__).with_name("tuned.json")
"""Choices that `python -m bench.tune_triton` found better than the default, by device and shape."""


INTERPRETED = Machine(4, 512)  # few and large programs: the interpreter's time goes by operations, not by elements


@dataclass(frozen=True)
class Pass:
    """How a pass over the batch is divided.

    Attributes:
        case: Constants of the kernel.
        images: What the kernel calls so: N, or in rows without a pool the number of rows.
        groups: Channel groups.
        programs: Programs per channel group.
        tiles: Tiles per program.
        warps: Of a program.
    """

    case: Case
    images: int
    groups: int
    programs: int
    tiles: int
    warps: int
    # With the division, so that forgetting it (`divide.cache_clear`) forgets them.
    _launches: dict[tuple[Any, ...], Launch] = field(default_factory=dict, compare=False, repr=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Programs, as Triton wants them."""
        return self.groups, self.programs

    def merging(self, parts: Pass) -> Case:
        """The case of a kernel that divides its work like this and adds up the parts of another pass."""
        return replace(self.case, splits=parts.programs, wide=self.case.wide or parts.case.wide)

    def launch(self, kernel: Any, *numbers: int, parts: Pass | None = None) -> Launch:
        """The launch of a kernel over this pass, made once.

        Args:
            kernel: Of `device`.
            numbers: Its whole numbers.
            parts: The pass whose parts it adds up, if it does.
        """
        key = (kernel.__name__, numbers, parts and parts.programs)
        launch = self._launches.get(key)
        if launch is None:
            case = self.merging(parts) if parts else self.case
            launch = self._launches[key] = Launch(kernel, self.grid, numbers, case, self.warps)
        return launch


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


@functools.cache
def _table() -> dict[str, dict[str, list[int]]]:
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}


def key(shape: tuple[int, ...], planes: bool, pool: bool, dtype: torch.dtype, residual: bool = False) -> str:
    """How a shape is called in the table: `256x6x24x24 planes pool float32`."""
    form = f"{'planes' if planes else 'rows'}{' pool' if pool else ''}{' residual' if residual else ''}"
    return f"{'x'.join(map(str, shape))} {form} {str(dtype).removeprefix('torch.')}"


def choice(
    shape: tuple[int, ...], planes: bool, pool: bool, dtype: torch.dtype, machine: Machine, residual: bool = False
) -> Choice:
    """The tuned choice for a shape on this device, or the default."""
    tuned = _table().get(machine.name, {}).get(key(shape, planes, pool, dtype, residual))
    return Choice(*tuned) if tuned else Choice()


@functools.lru_cache(maxsize=4096)
def divide(
    shape: tuple[int, int, int, int],
    planes: bool,
    pool: bool,
    activation: str | None,
    training: bool,
    cumulative: bool,
    dtype: torch.dtype,
    machine: Machine,
    resident: bool,
    residual: bool = False,
) -> Pass:
    """Tiles and programs for a pass over (N, C, H, W).

    A thread holds eight numbers of a tile, loaded by 16 bytes where the layout allows. As many programs as occupy the
    device four times over (or what `TABLE` says is better), but in the split form no more per channel than the square
    root of a 50th of its pixels: every program of the second launch reads the parts of all, which so costs forward and
    backward of float32 together at most 0.4 bytes per element. Where that leaves multiprocessors idle, programs are
    twice as wide.
    """
    images, channels, height, width = shape
    pixels = images * height * width
    if not pool:
        images, height, width = (images, 1, height * width) if planes else (pixels, 1, 1)
    case = Case(
        C=channels,
        H=height,
        W=width,
        planes=planes,
        pool=pool,
        activation=activation,
        training=training,
        cumulative=cumulative,
        BM=1,
        BC=1,
        splits=1,
        double=dtype == torch.float64,
        wide=False,
    )
    units = images * case.units
    if resident:
        tile, lanes = _resident_tile(units, channels, planes, dtype, machine)
        warps = min(16, max(4, tile * lanes * (4 if pool else 1) // 1024))
        return _with_index(Pass(replace(case, BM=tile, BC=lanes), images, -(-channels // lanes), 1, 1, warps))
    lanes = 1 if planes else min(_power_of_two(channels), 128 // dtype.itemsize)
    groups = -(-channels // lanes)
    chosen = choice(shape, planes, pool, dtype, machine, residual)
    wanted = max(1, chosen.programs * machine.multiprocessors // groups)
    if training:
        wanted = min(wanted, max(1, math.isqrt(pixels // 50)))
    warps = chosen.warps if groups * wanted >= machine.multiprocessors else 16
    # In planes a thread loads 16 bytes of a row, and so holds whole windows: nothing is passed between threads.
    per_thread = max(1, 8 // dtype.itemsize) if pool and planes else 8
    tile = min(_power_of_two(units), max(1, machine.threads_per_warp * warps * per_thread // lanes))
    tiles = -(-units // tile)
    per_program = -(-tiles // min(wanted, tiles))
    programs = -(-tiles // per_program)
    return _with_index(Pass(replace(case, BM=tile, BC=lanes), images, groups, programs, per_program, warps))


def _with_index(work: Pass) -> Pass:
    """The pass, with 64-bit offsets where 32 bits are too few for what any lane counts to.

    Lanes outside of the batch count too: those of the last tile and channel group, of windows over the edge, and of
    parts up to the next power of two.
    """
    case = work.case
    units = -(-work.images * case.units // case.BM) * case.BM
    channels = work.groups * case.BC
    offsets = -(-units // case.units) * (4 * case.units if case.pool else case.S) * channels
    parts = _power_of_two(work.programs) * max(3 * channels, work.tiles * case.BM)
    return replace(work, case=replace(case, wide=max(offsets, parts) >= 2**31))


def _resident_tile(units: int, channels: int, planes: bool, dtype: torch.dtype, machine: Machine) -> tuple[int, int]:
    """All units; a channel of planes, or as many of a row as memory passes on at once: a byte per thread of a warp."""
    wide = max(1, machine.threads_per_warp // dtype.itemsize)
    return _power_of_two(units), 1 if planes else min(_power_of_two(channels), wide)


def is_resident(
    shape: tuple[int, int, int, int], planes: bool, pool: bool, dtype: torch.dtype, machine: Machine
) -> bool:
    """Whether a training pass over (N, C, H, W) takes the resident form."""
    return _resident_bytes(shape, planes, pool, dtype, machine) <= RESIDENT_BYTES


@functools.lru_cache(maxsize=4096)
def _resident_bytes(
    shape: tuple[int, int, int, int], planes: bool, pool: bool, dtype: torch.dtype, machine: Machine
) -> float:
    """What one program of the resident form holds in registers; too much where its offsets would need 64 bits."""
    case = divide(shape, planes, pool, None, True, False, dtype, machine, True).case
    return math.inf if case.wide else case.BM * case.BC * (4 if pool else 1) * max(4, dtype.itemsize)


def machine_of(device: torch.device) -> Machine:
    """What a device is divided as."""
    if device.type != "cuda":
        return INTERPRETED
    return _gpu(device)


@functools.cache
def _gpu(device: torch.device) -> Machine:
    properties = torch.cuda.get_device_properties(device)
    return Machine(properties.multi_processor_count, properties.warp_size, properties.name)
