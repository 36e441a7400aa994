"""The lesson's own batch norm, to the letter, and the adapter that plugs it into the contract.

Source: the seed lesson (d2l.ai, "Batch Normalization", from scratch). Its `batch_norm` and `BatchNorm`
keep the lesson's names, shapes and decisions, including those that differ from torch's.
"""

import torch
from torch import Tensor, nn

from kernels.arguments import as_number, check_scalars, check_statistics, check_strided, check_tensors
from kernels.contract import Implementation


def batch_norm(  # noqa: D417 - the lesson's signature
    X: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moving_mean: Tensor,
    moving_var: Tensor,
    eps: float,
    momentum: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize (N, C) or (N, C, H, W); predict when gradients are off, else train.

    Args:
        X: The input.
        gamma: Scale; `beta`, the moving tensors and it have shape (1, C) or (1, C, 1, 1).
        momentum: Weight of the *old* moving value, the opposite of torch's.

    Returns:
        The output and the new moving mean and (biased) variance.

    Raises:
        AssertionError: While training, an input of other than 2 or 4 dimensions.
    """
    if not torch.is_grad_enabled():
        X_hat = (X - moving_mean) / torch.sqrt(moving_var + eps)
    else:
        assert len(X.shape) in (2, 4)
        if len(X.shape) == 2:
            mean = X.mean(dim=0)
            var = ((X - mean) ** 2).mean(dim=0)
        else:
            mean = X.mean(dim=(0, 2, 3), keepdim=True)
            var = ((X - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        X_hat = (X - mean) / torch.sqrt(var + eps)
        moving_mean = momentum * moving_mean + (1.0 - momentum) * mean
        moving_var = momentum * moving_var + (1.0 - momentum) * var
    Y = gamma * X_hat + beta
    return Y, moving_mean.data, moving_var.data


class BatchNorm(nn.Module):
    """The lesson's layer: `num_dims` is 2 for (N, C) input and 4 for (N, C, H, W).

    The moving statistics are plain tensors, so they follow the input's device by hand and are in no
    `state_dict`.
    """

    def __init__(self, num_features: int, num_dims: int) -> None:
        super().__init__()
        shape = (1, num_features) if num_dims == 2 else (1, num_features, 1, 1)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.moving_mean = torch.zeros(shape)
        self.moving_var = torch.ones(shape)

    def forward(self, X: Tensor) -> Tensor:
        """Normalize X, and keep the moving statistics that come back."""
        if self.moving_mean.device != X.device:
            self.moving_mean = self.moving_mean.to(X.device)
            self.moving_var = self.moving_var.to(X.device)
        Y, self.moving_mean, self.moving_var = batch_norm(
            X, self.gamma, self.beta, self.moving_mean, self.moving_var, eps=1e-5, momentum=0.9
        )
        return Y


def adapted(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # the lesson asks torch.is_grad_enabled() instead
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The lesson's function behind the signature of `F.batch_norm`; differences in `IMPLEMENTATION`.

    `momentum` is translated: torch's weight of the new batch to the lesson's weight of the old value.
    """
    check_scalars(training, momentum, eps)
    check_tensors(input, running_mean, running_var, weight, bias, training)
    check_strided(running_mean, running_var, weight, bias)
    if running_mean is not None or running_var is not None:
        check_statistics(running_mean, running_var, training)
    momentum, eps = as_number(momentum), as_number(eps)
    shape = [1, -1] + [1] * (input.dim() - 2)
    channels = input.shape[1]

    def shaped(tensor: Tensor | None, default: float) -> Tensor:
        if tensor is None:
            return input.new_full((channels,), default).view(shape)
        return tensor.to(input.dtype).reshape(shape)

    y, new_mean, new_var = batch_norm(
        input,
        shaped(weight, 1.0),
        shaped(bias, 0.0),
        shaped(running_mean, 0.0),
        shaped(running_var, 1.0),
        eps,
        1.0 - momentum,
    )
    if torch.is_grad_enabled():
        if running_mean is not None:
            running_mean.data.copy_(new_mean.view(-1))
        if running_var is not None:
            running_var.data.copy_(new_var.view(-1))
    return y


IMPLEMENTATION = Implementation(
    name="tutorial",
    summary="the lesson's code in eager operations",
    batch_norm=adapted,
    differences={
        "mode": "trains when gradients are on and predicts when they are off, whatever `training` says",
        "biased running_var": "moves `running_var` by the biased variance, without m / (m - 1)",
        "untracked": "without running statistics it predicts with mean 0 and variance 1",
        "dimensions": "takes 2-D and 4-D input only (AssertionError otherwise)",
        "one value": "normalizes one value per channel to `bias` in place of an error",
        "empty": "an empty batch makes the running statistics NaN",
        "half": "computes the statistics in the input's own type, float16 and bfloat16 included",
    },
    order=10,
)
