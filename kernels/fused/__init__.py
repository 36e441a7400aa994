"""What implementations with kernels of their own share: no implementation itself.

pair.py        a pair of kernels, forward and backward: what they take and give
block.py       the pair as an implementation: the call
autograd.py    its derivative
operators.py   both as torch's operators
steps.py       what kernels don't do of batch norm's four steps
checks.py      refuses operands that a kernel would misread
layouts.py     planes and rows, and memory for results
"""
