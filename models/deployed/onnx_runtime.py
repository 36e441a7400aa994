"""ONNX Runtime on the CPU, on an export of the network to ONNX.

Source: https://onnxruntime.ai/docs/performance/tune-performance/threading.html
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.deployed._packages import imported, why_missing
from models.deployed.way import Deployed, Way

QUIET = 3
"""Log errors only."""


def export(network: nn.Sequential, example: Tensor) -> bytes:
    """The content of the network's ONNX file, for batches like `example`, weights included."""
    imported("onnxscript")  # for a reason in one line; the exporter would import it anyway
    program = torch.onnx.export(network, (example,), dynamo=True, verbose=False)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def prepare(network: nn.Sequential, example: Tensor, threads: int) -> Deployed:
    """See `Way.prepare`."""
    onnxruntime = imported("onnxruntime")
    content = export(network, example)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Any) -> Any:
        return session.run(None, {name: images})[0]

    return Deployed(
        run,
        len(content),
        lambda: f"onnxruntime {onnxruntime.__version__}",
        feed=lambda images: images.numpy(),
        own_threads=True,
    )


def why_unavailable(device: torch.device) -> str | None:
    """It takes the CPU, the runtime and what exports to it."""
    return why_missing(device, "onnxruntime", "onnx", "onnxscript")


WAY = Way("onnxruntime", "ONNX Runtime on an export to ONNX", prepare, why_unavailable, order=240)
