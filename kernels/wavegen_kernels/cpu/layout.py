"""How the weights of a WaveNet lie in memory: one buffer, in the order the loop reads it.

    input projection | per layer: gate, residual bias, residual | skip bias, skip | output | end

A matrix (inputs, outputs) is cut into panels of `width` lane vectors; a panel's accumulators stay
in registers while its (inputs, width, 16) weights stream by. Outputs are padded with zeros to whole
panels. The gate's panels hold vector u_j beside vector v_j, so that tanh(u) sigmoid(v) needs no
second pass. The codes are permuted so that lane i of the logits holds the i-th sixteenth of them:
sums over a lane are then sums over consecutive codes, which is what a draw needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from wavegen_kernels.cpu.lanes import WIDTH

PRECISIONS = ("f32", "i16", "i8x15", "i8")
DEPTH_UNIT = 16  # depths are multiples of this: of 16 channels, or of 16 input taps


@dataclass(frozen=True)
class Shape:
    """Padded sizes a loop is specialised for; all channel counts are multiples of 16.

    `registers` is the number of lane vectors a panel may hold, `prefetch` how many bytes ahead of
    their use weights are fetched, `precision` one of `PRECISIONS`, `order` the number of coefficients
    of the signal path lpc (0 on the path direct).
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
        return [int(value) for value in fields.values()]

    @property
    def gate_pairs(self) -> int:
        """Vectors of u, and as many of v, in a panel of the gate."""
        return panel_width(self.residual // WIDTH, max(1, self.registers // 2))

    def width(self, channels: int) -> int:
        """Vectors in a panel of an ordinary matrix with this many outputs."""
        return panel_width(channels // WIDTH, self.registers)

    # Sizes in floats of the parts of the weight buffer.

    @property
    def input_floats(self) -> int:
        return self.input_taps * self.residual

    @property
    def gate_floats(self) -> int:
        return self.kernel_size * self.residual * 2 * self.residual

    @property
    def residual_floats(self) -> int:
        return self.residual + self.residual * self.residual

    @property
    def layer_floats(self) -> int:
        return self.gate_floats + self.residual_floats

    @property
    def skip_start(self) -> int:
        """The last layer has no residual product, so the skip follows its gate."""
        return self.input_floats + self.num_layers * self.layer_floats - self.residual_floats

    @property
    def output_start(self) -> int:
        return self.skip_start + self.skip + self.num_layers * self.residual * self.skip

    @property
    def end_start(self) -> int:
        return self.output_start + self.output + self.skip * self.output

    @property
    def total_floats(self) -> int:
        return self.end_start + self.codes + self.output * self.codes

    @property
    def scratch_floats(self) -> int:
        """Taps and input of a layer, gated outputs of all layers, s, o, logits, exponentials, lane sums."""
        return (self.kernel_size * self.residual + self.num_layers * self.residual + self.skip + self.output
                + 2 * self.codes + WIDTH)


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

