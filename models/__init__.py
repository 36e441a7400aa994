"""LeNet and ResNet-20 with places for a batch norm, Fashion-MNIST, and the loop that trains them on it.

This package uses `kernels` and knows nothing of benchmarks.
"""
