"""Tests of Triton kernels in Triton's interpreter, which is chosen when a kernel is defined.

So they have a process of their own: `tests/kernels/test_interpreted.py` runs this folder in one.
By hand: TRITON_INTERPRET=1 python -m pytest tests/interpreted
"""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
else:
    import numpy as np
    from triton.runtime import interpreter

    np.seterr(over="ignore", invalid="ignore")  # as a GPU does: infinity, and NaN of it, are numbers like others

    _first_call = interpreter.InterpretedFunction.__call__
    _called = set()

    def _call(self, *args, **kwargs):
        """Spare the patching of triton.language that every call of a device function repeats: 40 % of the time."""
        if self.fn.__module__.startswith("wavegen_kernels") or self.fn in _called:
            return self.rewrite()(*args, **kwargs)
        _called.add(self.fn)
        return _first_call(self, *args, **kwargs)

    def _create_dot(self, a, b, total, input_precision, max_num_imprecise_acc):
        """Sum in float64 and round once: numpy's product rounds a row by its place in the matrix, a GPU's does not."""
        product = np.matmul(a.data, b.data, dtype=np.float64) + total.data
        return interpreter.TensorHandle(product.astype(total.data.dtype), total.dtype.scalar)

    interpreter.InterpretedFunction.__call__ = _call
    interpreter.InterpreterBuilder.create_dot = _create_dot
