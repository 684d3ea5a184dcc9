"""The kernels below wavegen's engines: arrays in, arrays out. Nothing here imports wavegen."""
