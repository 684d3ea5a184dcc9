"""Micro-kernels of one generation step, written in lane operations.

    a      = cond + sum_k W_k h[t - k d]                   past, more; gate adds the current tap
    z      = tanh(a_u) * sigmoid(a_v)                      gate
    h      = residual_scale * h + W z + b                  residual
    s      = relu(b + W_1 z_1 + .. + W_L z_L)              begin, skip layer by layer, rectify
    o      = relu(W s + b),  logits = W o + b              output, end

Integer precisions: see `layout.py`; `enter`, `gate`, `rectify` and `output` store what the next
matrix reads. Kernels take addresses only; those over a matrix serve `rows` rows that share each
weight read. A row's sum is the same whatever the number of rows. `loop_plain.py` holds the same
functions as plain loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wavegen_kernels.cpu.lanes import (
    FLOATS,
    INTS,
    LOG2_E,
    ROUND,
    VECTOR,
    WIDTH,
    Lanes,
    Value,
    address_kernel,
    constant,
    integers,
)
from wavegen_kernels.cpu.layout import FORMATS, Format, Shape

LOADS = 16  # weight vectors per turn of the inner loop: more gained nothing
SMALLEST = -126.0  # exponents below are zero: float32 has no normal number for them

Vectors = list[Value]
Rows = list[Vectors]  # the vectors of each row


class Matrix:
    """inputs @ weights for several rows, panel by panel, weights read once.

    Args:
        form: how weights and inputs are stored.
        depth, outputs, width: inputs, outputs, and vectors in a panel.
        rows: how many rows share a weight.
        unit: vectors that must be finished together: 2 for the gate, else 1.
    """

    def __init__(self, shape: Shape, form: Format, depth: int, outputs: int, width: int, rows: int,
                 unit: int = 1) -> None:
        self.shape, self.form, self.width, self.rows = shape, form, width, rows
        self.steps, self.depth = depth // form.group, depth
        self.bytes, self.step_bytes = form.matrix(depth, outputs), width * VECTOR
        # A narrow panel splits the sum into several chains, added in order at the end, so that enough
        # multiply-adds are in flight to hide their latency. The order of a float sum must not depend on the
        # number of rows, so its chains do not either.
        budget = shape.registers * (2 if shape.registers >= 8 else 1)
        chains = _power_of_two(shape.registers // width) if not form.is_integer else 1
        self.columns = max(count for count in range(1, width + 1) if width % count == 0 and (
            count <= unit or (count % unit == 0 and rows * form.planes * count * chains <= budget)))
        if form.is_integer:
            chains = _power_of_two(budget // (rows * form.planes * self.columns))
        self.unroll = max(chains, _power_of_two(LOADS // self.columns))
        while self.steps % self.unroll:
            self.unroll //= 2
        self.chains = min(chains, self.unroll)
        self.passes = width // self.columns
        self.blocks = outputs // (self.columns * WIDTH)

    def emit(self, lanes: Lanes, weights: Value, following: Value, inputs: Sequence[Value],
             start: Callable[[Value, int, int], Value] | None, finish: Callable[[Value, int, Vectors], None]) -> None:
        """finish(block, row, start + inputs @ weights) for every block of `columns` vectors and every row.

        Args:
            weights: address of the matrix.
            following: address of the weights read after these, to be fetched towards the end.
            inputs: address of the stored inputs of each row.
            start: gets block, row, column; None starts at zero.
            finish: gets int32 vectors in the integer forms.
        """
        def body(block: Value) -> None:
            panel, part = lanes.divide(block, self.passes)
            place = lanes.offset(lanes.scaled(panel, self.steps * self.step_bytes),
                                 lanes.scaled(part, self.columns * VECTOR))
            zero = integers(0) if self.form.is_integer else constant(0.0)
            sums = [[zero if start is None else start(block, row, column) for column in range(self.columns)]
                    for row in range(self.rows)]
            sums = self._sum(lanes, weights, place, following, inputs, sums, zero)
            for row, vectors in enumerate(sums):
                finish(block, row, vectors)

        repeat(lanes, self.blocks, body)

    def _sum(self, lanes: Lanes, weights: Value, place: Value, following: Value, inputs: Sequence[Value],
             start: Rows, zero: Value) -> Rows:
        rows, columns, planes, shape = self.rows, self.columns, self.form.planes, self.shape
        per_chain = rows * columns * planes

        def slot(chain: int, row: int, column: int, plane: int) -> int:
            return ((chain * rows + row) * columns + column) * planes + plane

        def turn(index: Value, held: Vectors) -> Vectors:
            sums = list(held)
            at = lanes.offset(place, lanes.scaled(index, self.unroll * self.step_bytes))
            line, ahead = lanes.at(weights, at), lanes.offset(at, shape.prefetch)
            if shape.prefetch:
                inside = lanes.below(ahead, self.bytes)
                beyond = lanes.at(following, lanes.offset(ahead, -self.bytes))
                fetched = lanes.choose(inside, lanes.at(weights, ahead), beyond)
            column_bytes = lanes.scaled(index, self.unroll * 4)
            for step in range(self.unroll):
                chain = step % self.chains
                x = [[self._input(lanes, lanes.at(inputs[row], column_bytes), step, plane)
                      for plane in range(planes)] for row in range(rows)]
                for column in range(columns):
                    offset = step * self.step_bytes + column * VECTOR
                    if shape.prefetch:
                        lanes.prefetch(fetched, offset)
                    w = lanes.load_weights(line, offset, INTS if self.form.is_integer else FLOATS)
                    for row in range(rows):
                        for plane in range(planes):
                            i = slot(chain, row, column, plane)
                            sums[i] = self._multiply_add(lanes, sums[i], x[row][plane], w)
            return sums

        first = [start[row][column] if plane == 0 else zero
                 for row in range(rows) for column in range(columns) for plane in range(planes)]
        sums = lanes.loop(self.steps // self.unroll, turn, [*first, *[zero] * (per_chain * (self.chains - 1))])
        add = lanes.add_ints if self.form.is_integer else lanes.add
        for chain in range(1, self.chains):
            sums[:per_chain] = [add(sums[i], sums[chain * per_chain + i]) for i in range(per_chain)]
        if planes == 2:
            sums = [add(sums[i], lanes.shift_left(sums[i + 1], 8)) for i in range(0, per_chain, 2)]
        return [[sums[row * columns + column] for column in range(columns)] for row in range(rows)]

    def _input(self, lanes: Lanes, column: Value, step: int, plane: int) -> Value:
        """The inputs of one step on all lanes; plane 0 holds the low bytes, plane 1 behind it the high ones."""
        if self.form.is_integer:
            return lanes.broadcast_word(column, 4 * step + plane * self.depth)
        return lanes.broadcast(column, 4 * step)

    def _multiply_add(self, lanes: Lanes, total: Value, x: Value, w: Value) -> Value:
        if not self.form.is_integer:
            return lanes.fma(w, x, total)
        return lanes.dot2(total, x, w) if self.form.group == 2 else lanes.dot4(total, x, w)


def _power_of_two(limit: int) -> int:
    """The largest power of two up to `limit`, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)


def repeat(lanes: Lanes, count: int, body: Callable[[Value], None]) -> None:
    """body(index) `count` times; a loop, so that a wide layer does not grow the code."""
    def turn(index: Value, _: Sequence[Value]) -> Vectors:
        body(index)
        return []

    lanes.loop(count, turn)


def store_activation(lanes: Lanes, form: Format, x: Value, address: Value, block: Value, channels: int,
                     lowest: int | None = None) -> None:
    """Store sixteen channels in a form; integers are rounded and clipped, ROUND already added.

    Args:
        x: the channels.
        block: which sixteen of the `channels`.
        lowest: of a stored value, if not the form's own: 0 rectifies.
    """
    if not form.is_integer:
        lanes.store(x, address, lanes.scaled(block, VECTOR))
        return
    q = lanes.quantize(x, form.lowest if lowest is None else lowest, form.highest)
    if form.name == "i16":
        lanes.store_low(q, 16, address, lanes.scaled(block, 2 * WIDTH))
        return
    low = lanes.scaled(block, WIDTH)
    lanes.store_low(q, 8, address, low)
    if form.planes == 2:
        lanes.store_low(lanes.shift_right(q, 8), 8, address, lanes.offset(low, channels))


def make_kernels(shape: Shape, rows: int = 1) -> dict[str, Any]:
    """The intrinsics of one shape, by name. Those over a matrix take `rows` rows.

    One row each:
        embed(table_1, table_2, h)           h = table_1[code] + table_2[older code]
        project(weights, history, h)         h += sum_j x[t-1-j] weights[j]
        squash(h)                            h = tanh(h)
        enter(constants, h, x)               x = h as the layer's matrix reads it
        begin(constants, sums)               start of the skip sums
        rectify(constants, sums, s)          s = relu(skip sums)
        fetch(address)                       a hint that the slot of a ring there is read soon
        exponentials(logits, scale, min_p, e, sums)   e = exp((logits - max) / temperature), dropped below min_p

    `rows` rows: intermediate results lie `scratch["total"]` apart, a slot x of a ring and the condition by the
    distance given. `following` is where the weights read next begin.
        past(weights, following, x, condition, a, x_distance, condition_distance)   oldest tap
        more(weights, following, x, a, x_distance)                                  another past tap
        gate(weights, following, x, a, condition, z, x_distance, condition_distance)
        residual(weights, following, z, scale, h)
        skip(weights, following, z, sums)     one layer's slice
        output(weights, following, s, o), end(weights, following, o, logits)

    Weights begin with the constants of their part, see `layout.py`; past, more and skip have none.
    """
    size, vectors, form, end_form = 4 * shape.residual, shape.residual // WIDTH, shape.format, shape.end_format
    pairs, integer = shape.gate_pairs, shape.format.is_integer
    tap = Matrix(shape, form, shape.residual, 2 * shape.residual, 2 * pairs, rows, unit=2)
    square = Matrix(shape, form, shape.residual, shape.residual, shape.width(shape.residual), rows)
    slices = Matrix(shape, form, shape.residual, shape.skip, shape.width(shape.skip), rows)
    hidden = Matrix(shape, form, shape.skip, shape.output, shape.width(shape.output), rows)
    last = Matrix(shape, end_form, shape.output, shape.codes, shape.width(shape.codes), rows)

    def spread(lanes: Lanes, address: Value, distance: int | Value = shape.scratch["total"]) -> list[Value]:
        """The addresses of each row."""
        if isinstance(distance, int):
            return [lanes.at(address, row * distance) for row in range(rows)]
        return [lanes.at(address, lanes.scaled(distance, row)) if row else address for row in range(rows)]

    def place(lanes: Lanes, matrix: Matrix, block: Value, column: int = 0) -> Value:
        """Bytes before a column of a block."""
        return lanes.offset(lanes.scaled(block, matrix.columns * VECTOR), VECTOR * column)

    def embed(lanes: Lanes, table_1: Value, table_2: Value, h: Value) -> None:
        for j in range(vectors):
            total = lanes.load(table_1, VECTOR * j)
            if shape.input_kernel_size == 2:
                total = lanes.add(total, lanes.load(table_2, VECTOR * j))
            lanes.store(total, h, VECTOR * j)

    def project(lanes: Lanes, weights: Value, history: Value, h: Value) -> None:
        if not shape.input_taps:
            return
        matrix = Matrix(shape, FORMATS["f32"], shape.input_taps, shape.residual, shape.width(shape.residual), 1)

        def finish(block: Value, _: int, sums: Vectors) -> None:
            for column, total in enumerate(sums):
                lanes.store(total, h, place(lanes, matrix, block, column))

        matrix.emit(lanes, weights, lanes.at(weights, matrix.bytes), [history],
                    lambda block, _, column: lanes.load(h, place(lanes, matrix, block, column)), finish)

    def squash(lanes: Lanes, h: Value) -> None:
        for j in range(vectors):
            lanes.store(lanes.tanh(lanes.load(h, VECTOR * j)), h, VECTOR * j)

    def enter(lanes: Lanes, constants: Value, h: Value, x: Value) -> None:
        def turn(block: Value) -> None:
            at = lanes.scaled(block, VECTOR)
            value = lanes.load(h, at)
            if integer:
                rate, zero = lanes.load_weights(constants, at), lanes.load_weights(lanes.at(constants, size), at)
                value = lanes.fma(value, rate, zero)
            store_activation(lanes, form, value, x, block, shape.residual)

        repeat(lanes, vectors, turn)

    def fetch(lanes: Lanes, address: Value) -> None:
        for start in range(0, shape.row_bytes, VECTOR):
            lanes.prefetch(address, start)

    def keep(lanes: Lanes, target: Value) -> Callable[[Value, int, Vectors], None]:
        """Store the sums of the gate as they are."""
        targets = spread(lanes, target)

        def finish(block: Value, row: int, sums: Vectors) -> None:
            for column, total in enumerate(sums):
                lanes.store(total, targets[row], place(lanes, tap, block, column))

        return finish

    def halves(lanes: Lanes, address: Value, block: Value, column: int) -> Value:
        """Vector `column` of the u and v of a block, from an array of all u, then all v."""
        at = lanes.offset(lanes.scaled(block, tap.columns // 2 * VECTOR), VECTOR * (column // 2))
        return lanes.load(lanes.at(address, column % 2 * size), at)

    def resume(lanes: Lanes, sums: list[Value], matrix: Matrix) -> Callable[[Value, int, int], Value]:
        """Go on from stored sums."""
        load = lanes.load_ints if integer else lanes.load
        return lambda block, row, column: load(sums[row], place(lanes, matrix, block, column))

    def past(lanes: Lanes, weights: Value, following: Value, x: Value, condition: Value, a: Value,
             x_distance: Value, condition_distance: Value) -> None:
        conditions = spread(lanes, condition, condition_distance)
        begin_at = None if integer else (lambda block, row, column: halves(lanes, conditions[row], block, column))
        tap.emit(lanes, weights, following, spread(lanes, x, x_distance), begin_at, keep(lanes, a))

    def more(lanes: Lanes, weights: Value, following: Value, x: Value, a: Value, x_distance: Value) -> None:
        tap.emit(lanes, weights, following, spread(lanes, x, x_distance), resume(lanes, spread(lanes, a), tap),
                 keep(lanes, a))

    def gate(lanes: Lanes, weights: Value, following: Value, x: Value, a: Value, condition: Value, z: Value,
             x_distance: Value, condition_distance: Value) -> None:
        conditions, targets = spread(lanes, condition, condition_distance), spread(lanes, z)
        scales, line = lanes.at(weights, 2 * size), lanes.at(weights, 4 * size)

        def finish(block: Value, row: int, sums: Vectors) -> None:
            if integer:
                sums = [lanes.fma(lanes.to_float(total), halves(lanes, scales, block, column),
                                  halves(lanes, conditions[row], block, column))
                        for column, total in enumerate(sums)]
            for j in range(tap.columns // 2):
                value = lanes.gate(sums[2 * j], sums[2 * j + 1])
                if integer:
                    value = lanes.fma(value, lanes.load_weights(line), lanes.load_weights(line, VECTOR))
                channel = lanes.offset(lanes.scaled(block, tap.columns // 2), j)
                store_activation(lanes, form, value, targets[row], channel, shape.residual)

        tap.emit(lanes, lanes.at(weights, shape.gate_constants), following, spread(lanes, x, x_distance),
                 resume(lanes, spread(lanes, a), tap), finish)

    def residual(lanes: Lanes, weights: Value, following: Value, z: Value, scale: Value, h: Value) -> None:
        factor, targets, scales = lanes.broadcast(scale), spread(lanes, h), lanes.at(weights, size)

        def scaled(block: Value, row: int, column: int) -> Value:
            at = place(lanes, square, block, column)
            return lanes.fma(lanes.load(targets[row], at), factor, lanes.load_weights(weights, at))

        def finish(block: Value, row: int, sums: Vectors) -> None:
            for column, total in enumerate(sums):
                at = place(lanes, square, block, column)
                if integer:
                    total = lanes.fma(lanes.to_float(total), lanes.load_weights(scales, at),
                                      scaled(block, row, column))
                lanes.store(total, targets[row], at)

        square.emit(lanes, lanes.at(weights, shape.residual_constants), following, spread(lanes, z),
                    None if integer else scaled, finish)

    def begin(lanes: Lanes, constants: Value, sums: Value) -> None:
        def turn(block: Value) -> None:
            at = lanes.scaled(block, VECTOR)
            lanes.store(lanes.load_ints(constants, at), sums, at)

        repeat(lanes, shape.skip // WIDTH, turn)

    def skip(lanes: Lanes, weights: Value, following: Value, z: Value, sums: Value) -> None:
        totals = spread(lanes, sums)

        def finish(block: Value, row: int, vectors: Vectors) -> None:
            for column, total in enumerate(vectors):
                lanes.store(total, totals[row], place(lanes, slices, block, column))

        slices.emit(lanes, weights, following, spread(lanes, z), resume(lanes, totals, slices), finish)

    def rectify(lanes: Lanes, constants: Value, sums: Value, s: Value) -> None:
        def turn(block: Value) -> None:
            at = lanes.scaled(block, VECTOR)
            if integer:
                scale = lanes.load_weights(lanes.at(constants, 4 * shape.skip), at)
                bias = lanes.load_weights(lanes.at(constants, 8 * shape.skip), at)
                total = lanes.fma(lanes.to_float(lanes.load_ints(sums, at)), scale, bias)
                total = lanes.add(total, constant(ROUND))
            else:
                total = lanes.maximum(lanes.load(sums, at), constant(0.0))
            store_activation(lanes, form, total, s, block, shape.skip, lowest=0)

        repeat(lanes, shape.skip // WIDTH, turn)

    def dense(matrix: Matrix, outputs: int, store: Callable[[Lanes, Value, Value, Value], None]) -> Callable[..., None]:
        """store(lanes, bias + inputs @ weights, row address, which sixteen)."""
        def emit(lanes: Lanes, weights: Value, following: Value, inputs: Value, out: Value) -> None:
            targets, bias = spread(lanes, out), lanes.at(weights, 4 * outputs if integer else 0)

            def biased(block: Value, _: int, column: int) -> Value:
                return lanes.load_weights(bias, place(lanes, matrix, block, column))

            def finish(block: Value, row: int, sums: Vectors) -> None:
                for column, total in enumerate(sums):
                    if integer:
                        scale = lanes.load_weights(weights, place(lanes, matrix, block, column))
                        total = lanes.fma(lanes.to_float(total), scale, biased(block, row, column))
                    vector = lanes.offset(lanes.scaled(block, matrix.columns), column)
                    store(lanes, total, targets[row], vector)

            matrix.emit(lanes, lanes.at(weights, 4 * outputs * (2 if integer else 1)), following,
                        spread(lanes, inputs), None if integer else biased, finish)

        return emit

    def store_hidden(lanes: Lanes, total: Value, address: Value, vector: Value) -> None:
        total = lanes.add(total, constant(ROUND)) if integer else lanes.maximum(total, constant(0.0))
        store_activation(lanes, end_form, total, address, vector, shape.output, lowest=0)

    def store_logits(lanes: Lanes, total: Value, address: Value, vector: Value) -> None:
        lanes.store(total, address, lanes.scaled(vector, VECTOR))

    def exponentials(lanes: Lanes, logits: Value, scale: Value, min_p: Value, e: Value, sums: Value) -> None:
        count = shape.codes // WIDTH
        rate, least = lanes.mul(lanes.broadcast(scale), constant(LOG2_E)), lanes.broadcast(min_p)

        def spot(index: Value) -> Value:
            return lanes.scaled(index, VECTOR)

        top = lanes.largest(lanes.loop(
            count, lambda i, held: [lanes.maximum(held[0], lanes.load(logits, spot(i)))],
            [lanes.load(logits)])[0])

        def turn(index: Value, held: Sequence[Value]) -> Vectors:
            power = lanes.mul(lanes.sub(lanes.load(logits, spot(index)), top), rate)
            p = lanes.exp2(lanes.maximum(power, constant(SMALLEST)))
            p = lanes.zero_below(p, constant(SMALLEST), power)
            p = lanes.zero_below(p, least, p)
            lanes.store(p, e, spot(index))
            return [lanes.add(held[0], p)]

        lanes.store(lanes.loop(count, turn, [constant(0.0)])[0], sums)

    return {
        "embed": address_kernel(3, embed), "project": address_kernel(3, project),
        "squash": address_kernel(1, squash), "enter": address_kernel(3, enter),
        "fetch": address_kernel(1, fetch), "past": address_kernel(7, past, 2), "more": address_kernel(5, more, 1),
        "gate": address_kernel(8, gate, 2), "residual": address_kernel(5, residual),
        "begin": address_kernel(2, begin), "skip": address_kernel(4, skip), "rectify": address_kernel(3, rectify),
        "output": address_kernel(4, dense(hidden, shape.output, store_hidden)),
        "end": address_kernel(4, dense(last, shape.codes, store_logits)),
        "exponentials": address_kernel(5, exponentials),
    }
