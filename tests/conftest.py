"""Without a GPU, Triton kernels are tested in Triton's interpreter, which has to be asked for before it is imported."""

import importlib.util
import os

import torch

# The main job, which tests start in processes of their own, is no part of a parallel run of the tests.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
    os.environ.pop(name, None)

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if importlib.util.find_spec("triton"):
        from triton.runtime.interpreter import InterpretedFunction

        prepare_and_call = InterpretedFunction.__call__

        def call(self, *args, **kwargs):
            """Don't prepare Triton's language again for every function that our kernels call.

            It is a third of the time, and the kernel's own launch has just done it.
            """
            if self.fn.__module__.startswith("kernels.triton_fused.device."):
                return self.rewrite()(*args, **kwargs)
            return prepare_and_call(self, *args, **kwargs)

        InterpretedFunction.__call__ = call
