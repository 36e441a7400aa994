"""Batch norms: the contract, the float64 reference, and one file or folder per implementation."""

from kernels.contract import Implementation
from kernels.conversion import convert, convert_synchronized, unconvert
from kernels.layer import BatchNorm
from kernels.registry import BrokenImplementationError, UnknownImplementationError, load, names

__all__ = [
    "BatchNorm",
    "BrokenImplementationError",
    "Implementation",
    "UnknownImplementationError",
    "convert",
    "convert_synchronized",
    "load",
    "names",
    "unconvert",
]
