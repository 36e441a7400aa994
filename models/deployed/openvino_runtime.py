"""OpenVINO on the CPU, on a conversion of the network.

In float32, as all other rows: on processors with bfloat16 units it would choose that by itself.
Source: https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.deployed._packages import imported, why_missing
from models.deployed.way import Deployed, Way

SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "1",
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": "NO",  # no other thread of this process should have to wait for that one core
}


def prepare(network: nn.Sequential, example: Tensor, threads: int) -> Deployed:
    """See `Way.prepare`."""
    openvino = imported("openvino")
    program = torch.export.export(network, (example,))
    model = openvino.convert_model(program, input=[list(example.shape)])  # else any shape, which is slower
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "lenet.xml")
        openvino.save_model(model, file, compress_to_fp16=False)
        file_bytes = sum(path.stat().st_size for path in file.parent.iterdir())
    compiled = core.compile_model(model, "CPU", {**SETTINGS, "INFERENCE_NUM_THREADS": str(threads)})

    def run(images: Any) -> Any:
        return compiled(images)[0]

    return Deployed(
        run,
        file_bytes,
        lambda: f"OpenVINO {openvino.__version__.partition('-')[0]}",
        feed=lambda images: images.numpy(),
        own_threads=True,
    )


def why_unavailable(device: torch.device) -> str | None:
    """It takes the CPU and the runtime."""
    return why_missing(device, "openvino")


WAY = Way("openvino", "OpenVINO, float32", prepare, why_unavailable, order=250)
