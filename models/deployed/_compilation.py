"""`torch.compile` of a whole network for one shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.deployed.way import Deployed, state_bytes

MOST_GRAPHS = 512
"""All networks share the code of `nn.Sequential`. The default limit of 8 graphs of one code is meant to catch
accidents, and a graph for each way and batch size is none."""


def compiled(network: nn.Sequential, example: Tensor) -> Deployed:
    """Compile a network for inference on batches like `example`, now and not with the first call.

    Raises:
        Exception: The compiler's, also where it would fall back to eager mode.
    """
    limits = {"recompile_limit": MOST_GRAPHS, "accumulated_recompile_limit": MOST_GRAPHS}
    whole = torch.compile(network, fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(limits), torch.inference_mode():
        whole(example)
    return Deployed(whole, state_bytes(network), lambda: "inductor")
