"""A small PTX machine: runs what Triton compiled, without a GPU, and watches what its threads do to memory.

    parse.py        text -> instructions, registers, source lines
    operations.py   opcodes that compute, one value of every thread at a time, in numpy
    tiles.py        ldmatrix, stmatrix, mma, wgmma: which thread holds which element
    memory.py       global and shared memory; every access is in bounds, aligned, defined and free of races
    machine.py      programs, warps, barriers, asynchronous copies and products; schedules of several programs
    launch.py       stands in for Triton's launcher: compiles a kernel for a GPU and runs it here

A register is an array of one element per thread. What PTX leaves to the hardware is modelled as the
PTX ISA promises it and no further: an asynchronous copy arrives when it is waited for, not before.
"""
