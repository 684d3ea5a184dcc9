"""What the Triton kernels share: random numbers, gate, products, output layers, the draw of a code.

Each function works on a tile: (ROWS, channels), a row being an utterance or a time step. Channel
counts beyond a chunk are held as a tuple of tiles of CHUNK columns, as a tile cannot be sliced.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

# Triton reads $TRITON_INTERPRET when a kernel is defined: from then on it runs in numpy, on the CPU.
INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))


@triton.jit
def philox_uniform(seed, stream, t):
    """Uniform float32 in [0, 1), twin of `wavegen_kernels.philox.uniform`: equal bits.

    key = (seed low, seed high), counter = (t low, t high, stream low, stream high)

    Args:
        seed, stream, t: int64 of any one shape, the bits of numbers below 2^64.
    """
    c0, c1 = t.to(tl.uint32), (t >> 32).to(tl.uint32)
    c2, c3 = stream.to(tl.uint32), (stream >> 32).to(tl.uint32)
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return (c0 >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2^-24


@triton.jit
def tanh_exact(x):
    """tanh(x) to a few float32 roundings of 1."""
    e = tl.exp(2.0 * tl.minimum(x, 15.0))
    return (e - 1.0) / (e + 1.0)


@triton.jit
def tanh_fast(x):
    """tanh(x) in one instruction, off by at most 2^-11; interpreted, it is exact."""
    if INTERPRETED:
        return tanh_exact(x)
    else:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=r,r", [x], dtype=tl.float32,
                                         is_pure=True, pack=1)


@triton.jit
def exp2(x):
    """2^x to two roundings, without the care for results below 2^-126."""
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32,
                                         is_pure=True, pack=1)


@triton.jit
def reciprocal(x):
    """1 / x to one rounding, for 2^-126 < x < 2^126."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32,
                                         is_pure=True, pack=1)


@triton.jit
def gate(u, v, FAST: tl.constexpr):
    """tanh(u) sigmoid(v) in float32; FAST takes `tanh_fast`, of which the sigmoid is one too."""
    if FAST:
        return tanh_fast(u) * (0.5 * tanh_fast(0.5 * v) + 0.5)
    else:
        # Two exponentials and one division for both; the clamps keep every product finite.
        e = exp2(tl.minimum(u * 2.8853900817779268, 43.0))  # e^2u
        f = exp2(tl.minimum(v * -1.4426950408889634, 43.0))  # e^-v
        below = e + 1.0
        return (e - 1.0) * reciprocal(tl.fma(below, f, below))


@triton.jit
def dot(x, weights, total):
    """total + x @ weights, summed in float32; float32 operands are not rounded to TF32."""
    if INTERPRETED:  # numpy knows no bfloat16
        x, weights = x.to(tl.float32), weights.to(tl.float32)
    return tl.dot(x, weights, total, input_precision="ieee")


@triton.jit
def product(a, b):
    """a b, rounded: no compiler may contract it with a sum."""
    if INTERPRETED:
        return a * b
    else:
        return tl.inline_asm_elementwise("mul.rn.f32 $0, $1, $2;", "=r,r,r", [a, b], dtype=tl.float32,
                                         is_pure=True, pack=1)


@triton.jit
def predict(coefficients, past, exists, ORDER: tl.constexpr):
    """p[t] = clip(a_1 s[t-1] + .. + a_n s[t-n]), every product and sum rounded, in this order: float32 (ROWS,).

    Args:
        coefficients: pointers (ROWS,) to a_1; past: pointers (ROWS,) to s[t-1], before which the older ones lie.
    """
    total = product(tl.load(coefficients), tl.load(past, mask=exists, other=0.0))
    for i in tl.static_range(1, ORDER):
        total += product(tl.load(coefficients + i), tl.load(past + i, mask=exists, other=0.0))
    return tl.minimum(tl.maximum(total, -1.0), 1.0)


@triton.jit
def follow(predicted, excitation):
    """s[t] = clip(p[t] + decode[e[t]])."""
    return tl.minimum(tl.maximum(predicted + excitation, -1.0), 1.0)


@triton.jit
def code_of(thresholds, x, CODES: tl.constexpr):
    """The number of thresholds <= x, int32 (ROWS,); there are CODES of them, increasing, infinite at the end."""
    code = tl.zeros_like(x).to(tl.int32)
    for power in tl.static_range(16):
        if CODES >> (power + 1) > 0:
            middle = code + (CODES >> (power + 1))
            code = tl.where(tl.load(thresholds + middle - 1) <= x, middle, code)
    return code


@triton.jit
def output_layers(skip, output_weight, output_bias, end_weight, end_bias,
                  CHUNK: tl.constexpr, SKIPS: tl.constexpr, OUTPUTS: tl.constexpr, CODES: tl.constexpr,
                  STAGES: tl.constexpr):
    """Logits (ROWS, CODES) = W_end relu(W_out relu(skip) + b) + b.

    Args:
        skip: tuple of SKIPS float32 tiles (ROWS, CHUNK), the bias included.
        output_weight: (SKIPS, OUTPUTS, CHUNK, CHUNK), end_weight: (OUTPUTS, CHUNK, CODES).
        STAGES: 2 and more load the next chunk's weights while this one's are used.
    """
    dtype = output_weight.dtype.element_ty
    columns, codes = tl.arange(0, CHUNK), tl.arange(0, CODES)
    square = columns[:, None] * CHUNK + columns[None, :]
    wide = columns[:, None] * CODES + codes[None, :]
    hidden = ()
    for i in tl.static_range(SKIPS):
        hidden = hidden + (tl.maximum(skip[i], 0.0).to(dtype),)
    zero = tl.zeros_like(skip[0])
    logits = tl.zeros((skip[0].shape[0], CODES), tl.float32) + tl.load(end_bias + codes)[None, :]
    for j in tl.range(0, OUTPUTS, num_stages=STAGES):
        output = zero + tl.load(output_bias + j * CHUNK + columns)[None, :]
        for i in tl.static_range(SKIPS):
            output = dot(hidden[i], tl.load(output_weight + (i * OUTPUTS + j) * (CHUNK * CHUNK) + square), output)
        output = tl.maximum(output, 0.0).to(dtype)
        logits = dot(output, tl.load(end_weight + j * (CHUNK * CODES) + wide), logits)
    return logits


@triton.jit
def output_layers_by_memory(skip, scratch, output_weight, output_bias, end_weight, end_bias,
                            CHUNK: tl.constexpr, SKIPS: tl.constexpr, OUTPUTS: tl.constexpr, CODES: tl.constexpr,
                            STAGES: tl.constexpr):
    """`output_layers`, the same sums in the same order, for tall tiles: what enters a product waits in memory.

    So the registers hold the hidden outputs or the logits, never both, nor the skip sums beside them.

    Args:
        scratch: of the program, for ROWS * CHUNK * max(SKIPS, OUTPUTS) numbers.
    """
    dtype = output_weight.dtype.element_ty
    ROWS: tl.constexpr = skip[0].shape[0]
    rows, columns, codes = tl.arange(0, ROWS), tl.arange(0, CHUNK), tl.arange(0, CODES)
    tile = rows[:, None] * CHUNK + columns[None, :]
    square = columns[:, None] * CHUNK + columns[None, :]
    wide = columns[:, None] * CODES + codes[None, :]
    for i in tl.static_range(SKIPS):
        tl.store(scratch + i * (ROWS * CHUNK) + tile, tl.maximum(skip[i], 0.0).to(dtype))
    tl.debug_barrier()  # other threads load what these have stored
    hidden = ()
    for j in tl.static_range(OUTPUTS):
        bias = tl.load(output_bias + j * CHUNK + columns)[None, :]
        hidden = hidden + (tl.broadcast_to(bias, (ROWS, CHUNK)),)
    for i in tl.range(0, SKIPS, num_stages=STAGES):
        x = tl.load(scratch + i * (ROWS * CHUNK) + tile)
        sums = ()
        for j in tl.static_range(OUTPUTS):
            weight = tl.load(output_weight + (i * OUTPUTS + j) * (CHUNK * CHUNK) + square)
            sums = sums + (dot(x, weight, hidden[j]),)
        hidden = sums
    tl.debug_barrier()
    for j in tl.static_range(OUTPUTS):
        tl.store(scratch + j * (ROWS * CHUNK) + tile, tl.maximum(hidden[j], 0.0).to(dtype))
    tl.debug_barrier()
    logits = tl.broadcast_to(tl.load(end_bias + codes)[None, :], (ROWS, CODES))
    for j in tl.range(0, OUTPUTS, num_stages=STAGES):
        x = tl.load(scratch + j * (ROWS * CHUNK) + tile)
        logits = dot(x, tl.load(end_weight + j * (CHUNK * CODES) + wide), logits)
    return logits


@triton.jit
def draw(logits, uniform, inverse_temperature, min_p, CODES: tl.constexpr):
    """Codes int32 (ROWS,) by inverse CDF: the first whose cumulative probability exceeds uniform * total.

    p = exp((logits - max) / temperature), 0 where p < min_p; a code of probability zero is never drawn.

    Args:
        logits: float32 (ROWS, CODES).
        uniform, inverse_temperature, min_p: float32 (ROWS,).
    """
    codes = tl.arange(0, CODES)[None, :]
    p = exp2((logits - tl.max(logits, 1)[:, None]) * (inverse_temperature * 1.4426950408889634)[:, None])
    p = tl.where(p < min_p[:, None], 0.0, p)
    total = tl.sum(p, 1)
    beyond = tl.cumsum(p, 1) > (uniform * total)[:, None]
    # One reduction for both: the least code beyond the target, or where rounding leaves none, the
    # last possible code.
    rank = tl.where(p > 0.0, tl.where(beyond, codes, 2 * CODES - 1 - codes), 2 * CODES)
    code = tl.min(rank, 1)
    code = tl.where(code < CODES, code, 2 * CODES - 1 - code)
    return tl.where(total > 0.0, code, -1)
