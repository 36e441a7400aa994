"""What a user may do instead of swapping the batch norm: other ways to train LeNet with torch's own, each in one file.

This file imports nothing: the process of JAX, which needs no torch, imports this package too.
"""
