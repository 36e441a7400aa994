"""The lesson's own program, as its reader runs it: its layers, its loaders, its loop.

`python -m bench.studies.lesson.program --root FOLDER --epochs N --seed N`, with torchvision's `FashionMNIST/raw` in
FOLDER. It is here to be timed against `python -m models.training`; see `test_lesson.py`. What makes it slow is kept:
images decoded one by one through PIL and `ToTensor`, four worker processes, numbers read back from the device after
every step. Its evaluation leaves gradients on, so that its batch norm normalizes with the test batch's own statistics.

Source: the seed lesson; Zhang et al., "Dive into Deep Learning", sections 7.6 and 8.5 (`train_ch6`).
"""

from __future__ import annotations

import argparse
import time

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kernels.tutorial import BatchNorm

BATCH_SIZE, LR, WORKERS = 256, 1.0, 4


def loaders(root: str) -> tuple[DataLoader[tuple[Tensor, Tensor]], DataLoader[tuple[Tensor, Tensor]]]:
    """Training and test set, each with its four workers."""
    to_tensor = torchvision.transforms.ToTensor()
    sets = [torchvision.datasets.FashionMNIST(root, train=train, transform=to_tensor) for train in (True, False)]
    train, test = (
        DataLoader(images, BATCH_SIZE, shuffle=shuffle, num_workers=WORKERS)
        for images, shuffle in zip(sets, (True, False), strict=True)
    )
    return train, test


def network() -> nn.Sequential:
    """The lesson's sixteen layers."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5),
        BatchNorm(6, num_dims=4),
        nn.Sigmoid(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        BatchNorm(16, num_dims=4),
        nn.Sigmoid(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 120),
        BatchNorm(120, num_dims=2),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        BatchNorm(84, num_dims=2),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )
    for layer in net:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)
    return net


def correct(y_hat: Tensor, y: Tensor) -> float:
    """How many predictions are right, as a number of the host."""
    return float((y_hat.argmax(dim=1) == y).sum().item())


def main() -> None:
    """Train and print the lesson's last lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.lesson")
    parser.add_argument("--root", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the images")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    train_batches, test_batches = loaders(arguments.root)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    loss_of = nn.CrossEntropyLoss()
    timed, examples = 0.0, 0
    for _ in range(arguments.epochs):
        loss_sum, right, seen = 0.0, 0.0, 0
        net.train()
        for x, y in train_batches:
            start = time.perf_counter()
            optimizer.zero_grad()
            y_hat = net(x)
            loss = loss_of(y_hat, y)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                loss_sum += float((loss * x.shape[0]).item())
                right += correct(y_hat, y)
                seen += x.shape[0]
            timed += time.perf_counter() - start
        net.eval()
        test_right = sum(correct(net(x), y) for x, y in test_batches)
        examples += seen
    test_seen = len(test_batches.dataset)  # type: ignore[arg-type]
    print(f"loss {loss_sum / seen:.3f}, train acc {right / seen:.3f}, test acc {test_right / test_seen:.3f}")
    print(f"{examples / timed:.1f} examples/sec on cpu")


if __name__ == "__main__":
    main()
