"""PyTorch's own batch norm: ATen's native kernels, cuDNN or MIOpen, whichever PyTorch picks. The baseline."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.contract import Implementation


def backend(x: Tensor, training: bool) -> str:
    """What PyTorch picks for this input: "native", "cuDNN 9.2.0" or "MIOpen".

    Asks the same selector as the dispatcher; float32 parameters, as in every layer.
    """
    parameter = torch.ones(x.shape[1], device=x.device, dtype=torch.float32)
    try:
        picked = torch._C._select_batch_norm_backend(x, parameter, parameter, parameter, parameter, training, 1e-5).name
    except (AttributeError, TypeError, RuntimeError):  # not a public function: it may go
        return "as PyTorch picks"
    if picked.lower() == "cudnn":
        version = torch.backends.cudnn.version() or 0
        return f"cuDNN {version // 10000}.{version // 100 % 100}.{version % 100}"
    return {"miopen": "MIOpen", "native": "native"}.get(picked.lower(), picked)


IMPLEMENTATION = Implementation(
    name="builtin",
    summary="torch.nn.functional.batch_norm",
    batch_norm=F.batch_norm,
    backend=backend,
    order=30,
)
