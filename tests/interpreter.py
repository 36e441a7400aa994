"""Triton's interpreter, a third faster."""

import importlib.util
import os


def hasten() -> None:
    """Don't prepare Triton's language again for every function that our kernels call, where it is interpreted.

    It is a third of the time, and the kernel's own launch has just done it.
    """
    if os.environ.get("TRITON_INTERPRET") != "1" or not importlib.util.find_spec("triton"):
        return
    from triton.runtime.interpreter import InterpretedFunction

    prepare_and_call = InterpretedFunction.__call__

    def call(self, *args, **kwargs):
        if self.fn.__module__.startswith("kernels.triton_fused.device."):
            return self.rewrite()(*args, **kwargs)
        return prepare_and_call(self, *args, **kwargs)

    InterpretedFunction.__call__ = call
