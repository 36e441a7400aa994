"""Operations small enough to count their bytes by hand, and the sizes of their tensors."""

import torch

from bench.measure.traffic import moved
from bench.record.operations import Operation
from kernels import load

CPU = torch.device("cpu")
KERNEL, BLOCK = Operation((4, 3, 6, 6), "norm"), Operation((4, 3, 6, 6), "block")
RESIDUAL = Operation((4, 3, 6, 6), "residual+relu")
X = 4 * 3 * 6 * 6 * 4  # bytes of the batch, 1,728
Y = 4 * 3 * 3 * 3 * 4  # of the pooled block's output, 432
INDICES = 4 * 3 * 3 * 3 * 8  # of a pool, int64: 864
C = 3 * 4  # of a number per channel


def count(name, operation, pass_name, dtype=torch.float32):
    return moved(name, load(name), operation, pass_name, dtype, CPU)
