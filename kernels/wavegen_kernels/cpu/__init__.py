"""CPU kernels: vector IR through Numba intrinsics, and their plain Numba twins."""
