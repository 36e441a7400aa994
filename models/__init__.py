"""LeNet with a slot for a batch norm, Fashion-MNIST, and the loop that trains one on the other.

This package uses `kernels` and knows nothing of benchmarks.
"""
