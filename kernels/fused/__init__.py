"""What implementations with kernels of their own share: no implementation itself.

block.py     a pair of kernels as an implementation: the call, its derivative, both as torch's operators
checks.py    refuses operands that a kernel would misread
layouts.py   planes and rows, and memory for results
"""
