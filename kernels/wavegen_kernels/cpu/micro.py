"""Micro-kernels of a generation step, in lane operations and specialised for a shape.

    x      = [h[t - (K-1) d], .., h[t - d], h[t]]          the taps of a layer, oldest first
    z      = gate(W x + cond)                              gate
    h      = residual_scale * h + W z + b                  residual
    s      = relu(W [z_1 .. z_L] + b), o, logits           dense

Each takes addresses only. `loop_plain.py` holds the same functions as plain loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wavegen_kernels.cpu.lanes import LOG2_E, VECTOR, WIDTH, Lanes, Value, address_kernel, constant
from wavegen_kernels.cpu.layout import Shape

LOADS = 16  # weight vectors per turn of the inner loop: more gained nothing
SMALLEST = -126.0  # exponents below are zero: float32 has no normal number for them

Vectors = list[Value]


def matvec(lanes: Lanes, shape: Shape, weights: Value, inputs: Value, start: Vectors, depth: int) -> Vectors:
    """start[j] + sum_k inputs[k] * weights[k, j] for one panel of vectors j.

    A narrow panel splits the sum over k into several chains, added in order at the end, so that
    enough multiply-adds are in flight to hide their latency.
    """
    width = len(start)
    chains = _power_of_two(shape.registers // width)
    unroll = max(chains, _power_of_two(LOADS // width))
    assert depth % unroll == 0, (depth, unroll)

    def turn(index: Value, sums: Vectors) -> Vectors:
        sums = list(sums)
        rows = lanes.at(weights, lanes.scaled(index, unroll * width * VECTOR))
        column = lanes.at(inputs, lanes.scaled(index, unroll * 4))
        for k in range(unroll):
            x = lanes.broadcast(column, 4 * k)
            for j in range(width):
                place, chain = (k * width + j) * VECTOR, (k % chains) * width + j
                if shape.prefetch:
                    lanes.prefetch(rows, place + shape.prefetch)
                sums[chain] = lanes.fma(lanes.load_weights(rows, place), x, sums[chain])
        return sums

    zeros = [constant(0.0)] * (width * (chains - 1))
    sums = lanes.loop(depth // unroll, turn, [*start, *zeros])
    for chain in range(1, chains):
        sums[:width] = [lanes.add(sums[j], sums[chain * width + j]) for j in range(width)]
    return sums[:width]


def _power_of_two(limit: int) -> int:
    """The largest power of two up to `limit`, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)


def panels(lanes: Lanes, count: int, body: Callable[[Value], None]) -> None:
    """body(panel index) for every panel; a loop, so that a wide layer does not grow the code."""
    def turn(index: Value, _: Sequence[Value]) -> Vectors:
        body(index)
        return []

    lanes.loop(count, turn)


def dense(lanes: Lanes, shape: Shape, weights: Value, inputs: Value, out: Value, depth: int, outputs: int, width: int,
          start: Callable[[Value, int], Value], finish: Callable[[Value], Value]) -> None:
    """out = finish(start + inputs @ weights), panel by panel. `start` gets an offset and a vector index."""
    def panel(index: Value) -> None:
        offset = lanes.scaled(index, width * VECTOR)
        sums = matvec(lanes, shape, lanes.at(weights, lanes.scaled(index, depth * width * VECTOR)), inputs,
                      [start(offset, j) for j in range(width)], depth)
        for j, total in enumerate(sums):
            lanes.store(finish(total), lanes.at(out, offset), VECTOR * j)

    panels(lanes, outputs // (width * WIDTH), panel)


def make_kernels(shape: Shape) -> dict[str, Any]:
    """The intrinsics of one shape, by name.

    embed(table_1, table_2, h)           h = table_1[code] + table_2[older code]
    project(weights, history, h)         h += sum_j x[t-1-j] weights[j]
    squash(h)                            h = tanh(h)
    copy(source, target)                 R floats
    fetch(address)                       a hint that the R floats there are read soon
    gate(weights, x, condition, z)
    residual(weights, z, scale, h)       weights: bias, matrix
    skip(weights, z, s), output(weights, s, o), end(weights, o, logits)
    exponentials(logits, scale, min_p, e, sums)   e = exp((logits - max) / temperature), dropped below min_p
    """
    size, vectors = 4 * shape.residual, shape.residual // WIDTH

    def embed(lanes: Lanes, table_1: Value, table_2: Value, h: Value) -> None:
        for j in range(vectors):
            total = lanes.load(table_1, VECTOR * j)
            if shape.input_kernel_size == 2:
                total = lanes.add(total, lanes.load(table_2, VECTOR * j))
            lanes.store(total, h, VECTOR * j)

    def copy(lanes: Lanes, source: Value, target: Value) -> None:
        for j in range(vectors):
            lanes.store(lanes.load(source, VECTOR * j), target, VECTOR * j)

    def fetch(lanes: Lanes, address: Value) -> None:
        for j in range(vectors):
            lanes.prefetch(address, VECTOR * j)

    def project(lanes: Lanes, weights: Value, history: Value, h: Value) -> None:
        if not shape.input_taps:
            return
        dense(lanes, shape, weights, history, h, shape.input_taps, shape.residual, shape.width(shape.residual),
              lambda offset, j: lanes.load(lanes.at(h, offset), VECTOR * j), lambda total: total)

    def squash(lanes: Lanes, h: Value) -> None:
        for j in range(vectors):
            lanes.store(lanes.tanh(lanes.load(h, VECTOR * j)), h, VECTOR * j)

    def gate(lanes: Lanes, weights: Value, x: Value, condition: Value, z: Value) -> None:
        pairs, depth = shape.gate_pairs, shape.kernel_size * shape.residual

        def panel(index: Value) -> None:
            offset = lanes.scaled(index, pairs * VECTOR)
            start = lanes.at(condition, offset)
            both = [lanes.load(start, half * size + VECTOR * j) for j in range(pairs) for half in (0, 1)]
            row = lanes.at(weights, lanes.scaled(index, depth * 2 * pairs * VECTOR))
            both = matvec(lanes, shape, row, x, both, depth)
            for j in range(pairs):
                lanes.store(lanes.gate(both[2 * j], both[2 * j + 1]), lanes.at(z, offset), VECTOR * j)

        panels(lanes, vectors // pairs, panel)

    def residual(lanes: Lanes, weights: Value, z: Value, scale: Value, h: Value) -> None:
        factor = lanes.broadcast(scale)
        def start(offset: Value, j: int) -> Value:
            bias = lanes.load_weights(lanes.at(weights, offset), VECTOR * j)
            return lanes.fma(lanes.load(lanes.at(h, offset), VECTOR * j), factor, bias)

        dense(lanes, shape, lanes.at(weights, size), z, h, shape.residual, shape.residual,
              shape.width(shape.residual), start, lambda total: total)

    def biased(depth: int, outputs: int, rectify: bool) -> Callable[..., None]:
        def emit(lanes: Lanes, weights: Value, inputs: Value, out: Value) -> None:
            def start(offset: Value, j: int) -> Value:
                return lanes.load_weights(lanes.at(weights, offset), VECTOR * j)

            def finish(total: Value) -> Value:
                return lanes.maximum(total, constant(0.0)) if rectify else total

            dense(lanes, shape, lanes.at(weights, 4 * outputs), inputs, out, depth, outputs, shape.width(outputs),
                  start, finish)

        return emit

    def exponentials(lanes: Lanes, logits: Value, scale: Value, min_p: Value, e: Value, sums: Value) -> None:
        count = shape.codes // WIDTH
        rate, least = lanes.mul(lanes.broadcast(scale), constant(LOG2_E)), lanes.broadcast(min_p)

        def place(index: Value) -> Value:
            return lanes.scaled(index, VECTOR)

        top = lanes.largest(lanes.loop(
            count, lambda i, held: [lanes.maximum(held[0], lanes.load(logits, place(i)))],
            [lanes.load(logits)])[0])

        def turn(index: Value, held: Sequence[Value]) -> Vectors:
            power = lanes.mul(lanes.sub(lanes.load(logits, place(index)), top), rate)
            p = lanes.exp2(lanes.maximum(power, constant(SMALLEST)))
            p = lanes.zero_below(p, constant(SMALLEST), power)
            p = lanes.zero_below(p, least, p)
            lanes.store(p, e, place(index))
            return [lanes.add(held[0], p)]

        lanes.store(lanes.loop(count, turn, [constant(0.0)])[0], sums)

    return {
        "embed": address_kernel(3, embed), "project": address_kernel(3, project),
        "squash": address_kernel(1, squash), "copy": address_kernel(2, copy),
        "fetch": address_kernel(1, fetch),
        "gate": address_kernel(4, gate), "residual": address_kernel(4, residual),
        "skip": address_kernel(3, biased(shape.num_layers * shape.residual, shape.skip, True)),
        "output": address_kernel(3, biased(shape.skip, shape.output, True)),
        "end": address_kernel(3, biased(shape.output, shape.codes, False)),
        "exponentials": address_kernel(5, exponentials),
    }
