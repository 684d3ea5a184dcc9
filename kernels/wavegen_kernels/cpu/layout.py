"""How the weights of a WaveNet lie in memory: one buffer of bytes, in the order the loop reads it.

    input projection
    per layer:  past taps | gate constants | current tap | residual constants | residual | skip slice
    skip constants | output constants | output | end constants | end

The last layer has no residual. A matrix (inputs, outputs) is cut into panels of `width` lane vectors;
a panel's accumulators stay in registers while its weights stream by. Inputs are taken `group` at a
time: a weight vector holds sixteen outputs times `group` inputs. Outputs are padded with zeros to
whole panels. The gate's panels hold vector u_j beside vector v_j, so that tanh(u) sigmoid(v) needs no
second pass. The codes are permuted so that lane i of the logits holds the i-th sixteenth of them:
sums over a lane are then sums over consecutive codes, which is what a draw needs.

One stream of layers so laid out can be read by one thread, or by two: the current tap and the
residual by the one on which the next layer waits, skip slice and the next layer's past taps, which
are neighbours, by the other.

Arithmetic of the integer precisions. A channel's value v is stored as q = round(v * rate + zero),
clipped to the range of the format; rate and zero are constants of the channel. A product sums q * w
exactly in int32, w the weight over (rate * scale), scale one constant per output; what zero adds is
taken off in the constants (gate: in the conditioning, residual and output: in the bias, skip: at
the start of the sum). So sums do not depend on the order of summation; rates, scales, gate and the
residual stream h are float32, every operation rounded once in a fixed order.

    format  weights  activations                            products
    f32     float32  float32                                fused multiply-add
    i16     int16    int16, |q| <= 4095                     pairs in int32
    i8x15   int8     two planes of bytes, 0 <= q < 2^15     fours in int32, high and low byte
    i8      int8     uint8                                  fours in int32

The end layer of the 8-bit precisions is i16: a trained model's logits spread over many times the
typical weight, and 8 bits cost more there than in all other layers together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from wavegen_kernels.cpu.lanes import WIDTH

DEPTH_UNIT = 16  # depths are multiples of this: of 16 channels, or of 16 input taps
LINE = 4 * WIDTH  # bytes of a lane vector, and the alignment of every part


@dataclass(frozen=True)
class Format:
    """How one matrix and its inputs are stored."""

    name: str
    weight_bytes: int
    activation_bytes: int
    group: int  # inputs that share a lane
    lowest: int = 0  # of a stored activation
    highest: int = 0

    @property
    def is_integer(self) -> bool:
        return self.group > 1

    @property
    def planes(self) -> int:
        """Broadcasts, and sums, per weight vector."""
        return 2 if self.name == "i8x15" else 1

    def matrix(self, inputs: int, outputs: int) -> int:
        """Bytes of the weights of a matrix."""
        return self.weight_bytes * inputs * outputs

    def vector(self, channels: int) -> int:
        """Bytes of the activations of `channels` channels."""
        return self.activation_bytes * channels


FORMATS = {
    "f32": Format("f32", 4, 4, 1),
    "i16": Format("i16", 2, 2, 2, -4095, 4095),
    "i8x15": Format("i8x15", 1, 2, 4, 0, 32767),
    "i8": Format("i8", 1, 1, 4, 0, 255),
}
PRECISIONS = tuple(FORMATS)


@dataclass(frozen=True)
class Shape:
    """Padded sizes a loop is specialised for; all channel counts are multiples of 16.

    `registers` is the number of lane vectors a panel may hold, `prefetch` how many bytes ahead of
    their use weights are fetched, `precision` one of `PRECISIONS`, `order` the number of coefficients
    of the signal path lpc (0 on the path direct). Sizes and places are in bytes.
    """

    num_layers: int
    residual: int
    skip: int
    output: int
    codes: int
    kernel_size: int
    input_kernel_size: int
    input_taps: int
    input_tanh: bool
    registers: int
    prefetch: int = 0
    precision: str = "f32"
    order: int = 0

    @property
    def history(self) -> int:
        """Past samples a row keeps."""
        return max(self.input_taps, self.order)

    @property
    def sizes(self) -> list[int]:
        """The fields as numbers, the precision as its place in `PRECISIONS`."""
        fields = vars(self) | {"precision": PRECISIONS.index(self.precision)}
        return [int(fields[name]) for name in self.__dataclass_fields__]

    @property
    def format(self) -> Format:
        """Of every matrix but the first and the last."""
        return FORMATS[self.precision]

    @property
    def end_format(self) -> Format:
        """Of the matrix that gives the logits."""
        return FORMATS["i16"] if self.precision in ("i8", "i8x15") else self.format

    @property
    def gate_pairs(self) -> int:
        """Vectors of u, and as many of v, in a panel of the gate."""
        return panel_width(self.residual // WIDTH, max(1, self.registers // 2))

    def width(self, channels: int) -> int:
        """Vectors in a panel of an ordinary matrix with this many outputs."""
        return panel_width(channels // WIDTH, self.registers)

    # Parts of the weight buffer.

    @property
    def input_bytes(self) -> int:
        return 4 * self.input_taps * self.residual

    @property
    def tap_bytes(self) -> int:
        """One tap of the dilated convolution, (R, 2R)."""
        return self.format.matrix(self.residual, 2 * self.residual)

    @property
    def past_bytes(self) -> int:
        """All taps but the current one, oldest first."""
        return (self.kernel_size - 1) * self.tap_bytes

    @property
    def gate_constants(self) -> int:
        """Integer: rate and zero of h (R each), scales (2R), rate and zero of z on a lane vector each."""
        return 4 * 4 * self.residual + 2 * LINE if self.format.is_integer else 0

    @property
    def residual_constants(self) -> int:
        """Bias (R); integer: scales (R)."""
        return 4 * self.residual * (2 if self.format.is_integer else 1)

    @property
    def residual_bytes(self) -> int:
        return self.residual_constants + self.format.matrix(self.residual, self.residual)

    @property
    def slice_bytes(self) -> int:
        """One layer's part of the skip product, (R, S)."""
        return self.format.matrix(self.residual, self.skip)

    @property
    def current_place(self) -> int:
        """In a layer: gate constants and the current tap."""
        return self.past_bytes

    @property
    def residual_place(self) -> int:
        """In a layer: residual constants and residual."""
        return self.current_place + self.gate_constants + self.tap_bytes

    @property
    def slice_place(self) -> int:
        """In a layer but the last, where the slice takes the place of the residual."""
        return self.residual_place + self.residual_bytes

    @property
    def layer_bytes(self) -> int:
        return self.slice_place + self.slice_bytes

    @property
    def skip_place(self) -> int:
        """Skip constants. Bias (S); integer: start of the sums in int32, scales, bias (S each)."""
        return self.input_bytes + self.num_layers * self.layer_bytes - self.residual_bytes

    @property
    def output_place(self) -> int:
        """Bias (O); integer: scales, bias (O each); then the matrix."""
        return self.skip_place + 4 * self.skip * (3 if self.format.is_integer else 1)

    @property
    def end_place(self) -> int:
        """Bias (Q); integer: scales, bias (Q each); then the matrix."""
        constants = 4 * self.output * (2 if self.format.is_integer else 1)
        return self.output_place + constants + self.format.matrix(self.skip, self.output)

    @property
    def total_bytes(self) -> int:
        constants = 4 * self.codes * (2 if self.format.is_integer else 1)
        return self.end_place + constants + self.end_format.matrix(self.output, self.codes)

    # Rings and scratch of one row.

    @property
    def row_bytes(self) -> int:
        """One slot of a ring: the stored input of a layer."""
        return self.format.vector(self.residual)

    @cached_property
    def scratch(self) -> dict[str, int]:
        """Place of each intermediate result in the scratch of a row, and "total".

        h, a, skip sums, logits, exponentials and lane sums have four bytes a channel; z, s and o are
        in the format of the matrix they enter. "predicted" is p[t] of the signal path lpc.
        """
        parts = {"h": 4 * self.residual, "a": 8 * self.residual, "z": self.row_bytes, "sums": 4 * self.skip,
                 "s": self.format.vector(self.skip), "o": self.end_format.vector(self.output),
                 "logits": 4 * self.codes, "e": 4 * self.codes, "lane_sums": LINE, "predicted": 4}
        places, at = {}, 0
        for name, size in parts.items():
            places[name] = at
            at += -(-size // LINE) * LINE
        return places | {"total": at}


def panel_width(vectors: int, limit: int) -> int:
    """The largest divisor of `vectors` that fits the registers."""
    return max(width for width in range(1, limit + 1) if vectors % width == 0)


def padded(channels: int, limit: int) -> int:
    """The least multiple of 16 that splits into panels of at least half the registers."""
    vectors = -(-channels // WIDTH)
    while vectors > limit and 2 * panel_width(vectors, limit) < limit:
        vectors += 1
    return vectors * WIDTH


def make_shape(num_layers: int, residual: int, skip: int, output: int, codes: int, kernel_size: int,
               input_kernel_size: int, input_taps: int, input_tanh: bool, registers: int,
               prefetch: int = 0, precision: str = "f32", order: int = 0) -> Shape:
    """Shape of a network from its true sizes."""
    return Shape(
        num_layers=num_layers, residual=padded(residual, max(1, registers // 2)), skip=padded(skip, registers),
        output=padded(output, registers), codes=padded(codes, registers), kernel_size=kernel_size,
        input_kernel_size=input_kernel_size, input_taps=-(-input_taps // DEPTH_UNIT) * DEPTH_UNIT,
        input_tanh=input_tanh, registers=registers, prefetch=prefetch, precision=precision, order=order)
