"""The one signature of the generation loops, vector and plain.

    generate(sizes, weights, embedding, decode, thresholds, dilations, scale, rings, cursors, history, previous,
             table, prediction, hop, first_frame, position, seeds, streams, inverse_temperature, min_p, uniforms,
             forced, codes, logits, scratch) -> 0

sizes               int64 (13,)         `Shape.sizes`: the fields of `layout.Shape`; the vector loop has them built in
weights             uint8 (W,)          packed by `layout.Shape`
embedding           float32 (1 or 2, Q, R)   row for the newest code, then for the one before it;
                    path lpc: (3, Q, R)    for the codes of s[t-1], p[t] and e[t-1], see `predict.py`
decode              float32 (Q,)        amplitude of a code
thresholds          float32 (Q - 1,)    least amplitude of each code but the first
dilations           int64 (L,)
scale               float32 (1,)        residual scale
rings               uint8 (B, N)        per layer (K - 1) * dilation slots of `Shape.row_bytes`; t is kept in slot
                                        t % slots
cursors             int64 (L,)          scratch: the slot of each layer
history             float32 (B, 2 * n)  the n = `Shape.history` samples before t, newest first from n - 1 - t % n
previous            int64 (B, 2)        newest code, then the one before it; path lpc: e[t-1], code of s[t-1]
table               float32 (B, F, L, 2R)    conditioning frames from first_frame on; B or 1
prediction          float32 (B, F, order)    coefficients of the same frames; B or 1, order 0 on the path direct
hop, first_frame    int                 sample t uses frame t // hop
position            int                 t of the first sample of this call
seeds, streams      uint64 (B,)
inverse_temperature, min_p   float32 (B,)
uniforms            float32 (B, n) to use, (B, 0) to draw from Philox
forced              int64 (B, n) codes fed instead of drawn ones, or (B, 0)
codes               int64 (B, n)        out
logits              float32 (B, n, Q), or (B, 0, Q) if not wanted; out
scratch             uint8 (B, `Shape.scratch["total"]`)

B is any number for the plain loops, and the number a vector loop was made for.
"""

from __future__ import annotations

from numba import types


def _array(kind: types.Type, axes: int) -> types.Type:
    return types.Array(kind, axes, "C", aligned=True)


_f1, _f2, _f3, _f4 = (_array(types.float32, axes) for axes in (1, 2, 3, 4))
_i1, _i2, _u1 = _array(types.int64, 1), _array(types.int64, 2), _array(types.uint64, 1)
_b1, _b2 = _array(types.uint8, 1), _array(types.uint8, 2)

SIGNATURE = types.int64(
    _i1, _b1, _f3, _f1, _f1, _i1, _f1, _b2, _i1, _f2, _i2, _f4, _f3,
    types.int64, types.int64, types.int64, _u1, _u1, _f1, _f1, _f2, _i2, _i2, _f3, _b2)

# loop_pair: also the memory and the words both threads share, and the number of the call; see `pair.py`.
PAIR_SIGNATURE = types.int64(*SIGNATURE.args, _b1, _i1, types.int64)
ASSIST_SIGNATURE = types.int64(_b1, _i1, _b2, _f4, types.int64, types.int64, _b1, _i1, types.int64)
