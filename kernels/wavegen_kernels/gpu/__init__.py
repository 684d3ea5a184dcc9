"""Triton kernels: arrays on a CUDA device in, arrays out."""
