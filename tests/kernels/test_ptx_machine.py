"""The PTX machine itself: it computes what PTX says, and it reports what must not happen."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: there is no wheel of it for this platform")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton interprets its kernels, so nothing is compiled", allow_module_level=True)

import triton
import triton.language as tl

from ptx.launch import Device
from ptx.machine import Code, Launch
from ptx.memory import Buffer, Fault
from ptx.parse import parse

THREADS = 64
HEAD = """
.version 8.8
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel({parameters}
)
.reqntid {threads}
{{
	.reg .pred 	%p<40>;
	.reg .b16 	%h<40>;
	.reg .b32 	%r<80>;
	.reg .b64 	%d<40>;
	mov.u32 	%r0, %tid.x;
	mul.wide.u32 	%d20, %r0, 4;
	mov.b32 	%r70, memory;
	shl.b32 	%r71, %r0, 2;
	add.s32 	%r72, %r70, %r71;   // this thread's word of shared memory
	xor.b32 	%r73, %r71, 128;
	add.s32 	%r74, %r70, %r73;   // that of the other warp
{body}
	ret;
}}
"""


def run(body, *arrays, threads=THREADS, shared=4096, grid=1, mail=(), together=False, seed=None):
    """Run PTX whose %d<i> is the address of array i, %d<10 + i> that of this thread's word in it."""
    loads = "".join(f"\tld.param.b64 \t%d{i}, [p_{i}];\n\tadd.s64 \t%d{10 + i}, %d{i}, %d20;\n"
                    for i in range(len(arrays)))
    parameters = ",".join(f"\n\t.param .u64 .ptr .global .align 1 p_{i}" for i in range(len(arrays)))
    code = Code(parse(HEAD.format(parameters=parameters, body=loads + body, threads=threads)), shared)
    buffers = [Buffer(f"array {i}", array.reshape(-1).view(np.uint8), i in mail) for i, array in enumerate(arrays)]
    Launch(code, (grid, 1, 1), buffers, {f"p_{i}": buffer for i, buffer in enumerate(buffers)}, together, seed).run()


def words(count=THREADS):
    return np.arange(count, dtype=np.uint32) + 100


STORE, LOAD = "st.shared.b32 [%r72], %r0;\n", "ld.shared.b32 %r1, [%r74];\nst.global.b32 [%d10], %r1;\n"
COPY = "cp.async.ca.shared.global [%r72], [%d10], 0x4;\ncp.async.commit_group;\n"
REPORTED = {
    "no barrier between a store and a load": (STORE + LOAD, "race in shared memory.*warp 1 at PTX line"),
    "no barrier between a load and a store": (
        STORE + "bar.sync 0;\n" + LOAD + STORE.replace("%r0", "%r1"), "race in shared memory.*overwrites what"),
    "two warps store different words": (
        "st.shared.b32 [%r70], %r0;\n", "threads store different values"),
    "no barrier in global memory": (
        "st.global.b32 [%d10], %r0;\ncvt.u64.u32 %d5, %r73;\nadd.s64 %d6, %d0, %d5;\nld.global.b32 %r1, [%d6];\n",
        "race in global memory"),
    "read before it is waited for": (COPY + "ld.shared.b32 %r1, [%r72];\n", "before the asynchronous copy"),
    "one group too few waited for": (
        COPY + "cp.async.wait_group 1;\nbar.sync 0;\nld.shared.b32 %r1, [%r72];\n", "before the asynchronous copy"),
    "waited for, but not by the other warp": (
        COPY + "cp.async.wait_group 0;\n" + LOAD.replace("%d10", "%d11"), "race in shared memory"),
    "stored while it is copied": (COPY + "st.global.b32 [%d10], %r0;\n", "asynchronous copy may still read"),
    "stored by another warp right after the copy": (
        COPY + "cp.async.wait_group 0;\ncvt.u64.u32 %d5, %r73;\nadd.s64 %d6, %d0, %d5;\nst.global.b32 [%d6], %r0;\n",
        "race in global memory"),
    "behind the end": ("ld.global.b32 %r1, [%d10 + 4];\n", "out of bounds: 4 bytes at byte 256 of array 0"),
    "before the beginning": ("ld.global.b32 %r1, [%d10 + -4];\n", "out of bounds: 4 bytes at byte -4 of array 0"),
    "not aligned": ("ld.global.v2.b32 {%r1, %r2}, [%d0 + 4];\n", "misaligned: 8 bytes at byte 4 of array 0"),
    "behind shared memory": ("st.shared.b32 [%r72 + 4096], %r0;\n", "out of bounds of 4096 bytes"),
    "an undefined register": ("st.global.b32 [%d10], %r9;\n", "what is stored is undefined"),
    "an undefined word of shared memory": ("ld.shared.b32 %r1, [%r72];\nst.global.b32 [%d10], %r1;\n", "is undefined"),
    "an undefined predicate": ("@%p9 st.global.b32 [%d10], %r0;\n", "an undefined predicate"),
    "non-coherent, then stored": (
        "ld.global.nc.b32 %r1, [%d10];\nst.global.b32 [%d10], %r0;\n", r"past coherence \(.nc\) is stored"),
    "stored, then non-coherent": (
        "st.global.b32 [%d10], %r0;\nbar.sync 0;\nld.global.nc.b32 %r1, [%d10];\n", r"past coherence \(.nc\)"),
    "some threads do not come": (
        "setp.lt.u32 %p1, %r0, 5;\n@%p1 bar.sync 0;\n", "threads of a warp are missing"),
    "warps that have parted at a barrier": (
        "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra END;\nbar.sync 0;\nEND:\n@%p1 bar.sync 0;\n",
        "warps meet at different barriers"),
    "a shuffle of half a warp": (
        "setp.lt.u32 %p1, %r0, 16;\n@%p1 bra END;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;\nEND:\n",
        "threads of a warp are missing"),
}


@pytest.mark.parametrize("name", REPORTED)
def test_what_must_not_happen_is_reported(name):
    body, message = REPORTED[name]
    with pytest.raises(Fault, match=message):
        run(body, words(), words())


@pytest.mark.parametrize(
    ("body", "mail", "message"),
    [
        ("mov.u32 %r5, %ctaid.x;\nst.global.b32 [%d10], %r5;\n", (), "overwrites"),
        ("mov.u32 %r5, %ctaid.x;\nsetp.eq.u32 %p1, %r5, 0;\n@%p1 st.global.b32 [%d10], %r0;\n"
         "ld.global.b32 %r6, [%d10];\n", (), "reads a byte written by program 0"),
        ("ld.global.b64 %d7, [%d0];\n", (0,), "mail is read by an ordinary load"),
        ("st.global.b32 [%d10], %r0;\n", (0,), "mail is stored in other words"),
        ("ld.volatile.global.b64 %d7, [%d0];\n", (0,), "two warps look for the same mail"),
    ],
)
def test_programs_exchange_nothing_but_mail(body, mail, message):
    with pytest.raises(Fault, match=message):
        run(body, words(), grid=2, mail=mail)


def test_what_is_allowed_is_not_reported():
    source, out = words(), words()
    run(STORE + "bar.sync 0;\n" + LOAD, source)
    assert np.array_equal(source, np.arange(64) ^ 32)
    run(COPY + "cp.async.wait_group 0;\nbar.sync 0;\nld.shared.b32 %r1, [%r74];\nst.global.b32 [%d11], %r1;\n",
        words(), out)
    assert np.array_equal(out, words()[np.arange(64) ^ 32])
    # Of a copy of another size nothing is read: zeros arrive.
    run("mov.b32 %r2, 0;\n" + COPY.replace("0x4", "0x4, %r2").replace("%d10", "%d1") + "cp.async.wait_all;\n"
        "ld.shared.b32 %r1, [%r72];\nst.global.b32 [%d10], %r1;\n", out, np.zeros(0, np.uint32))
    assert not out.any()


def test_mail_is_late_but_arrives():
    """Program 1 waits for a word of program 0 and answers."""
    body = """
    mov.u32 %r5, %ctaid.x;
    setp.ne.u32 %p1, %r0, 0;
    setp.ne.u32 %p2, %r5, 0;
    mov.b64 %d7, 7;
    @%p1 bra END;
    @%p2 bra WAIT;
    st.global.b64 [%d0], %d7;
WAIT:
    ld.volatile.global.b64 %d8, [%d0];
    setp.ne.s64 %p3, %d8, 7;
    @%p3 bra WAIT;
    @%p2 st.global.b64 [%d1], %d8;
END:
    """
    for seed in range(3):
        mail, answer = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
        run(body, mail, answer, grid=2, mail=(0,), together=True, seed=seed)
        assert answer[0] == 7


def test_paths_part_and_meet_again():
    out = words()
    run("""
    and.b32 %r1, %r0, 1;
    setp.eq.u32 %p1, %r1, 1;
    mov.b32 %r2, 0;
    mov.b32 %r4, %r0;
    @%p1 bra ODD;
    add.s32 %r2, %r0, 1000;
    bra.uni MEET;
ODD:
    add.s32 %r2, %r2, 1;
    sub.s32 %r4, %r4, 1;
    setp.gt.s32 %p2, %r4, 0;
    @%p2 bra ODD;
MEET:
    shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;
    st.global.b32 [%d10], %r3;
    """, out)
    thread = np.arange(64) ^ 1
    assert np.array_equal(out, np.where(thread % 2, thread, thread + 1000))


def signed(x):
    return x.view(np.int32)


A = np.random.default_rng(0).integers(0, 2**32, 64, np.uint32)
B = np.random.default_rng(1).integers(0, 2**32, 64, np.uint32)
X, Y = (np.random.default_rng(seed).normal(0, 3, 64).astype(np.float32) for seed in (2, 3))
FORMULAS = {
    "add.s32 %r3, %r1, %r2;": A + B,
    "mul.hi.u32 %r3, %r1, %r2;": ((A.astype(np.uint64) * B) >> np.uint64(32)).astype(np.uint32),
    "mul.lo.s32 %r3, %r1, %r2;": A * B,
    "mul.wide.s32 %d9, %r1, %r2;\nmov.b64 {_, %r3}, %d9;":
        ((signed(A).astype(np.int64) * signed(B)) >> 32).astype(np.uint32),
    "div.s32 %r3, %r1, 77;": np.trunc(signed(A) / 77).astype(np.int32).view(np.uint32),
    "rem.s32 %r3, %r1, 77;": np.fmod(signed(A), 77).view(np.uint32),
    "shr.s32 %r3, %r1, 40;": (signed(A) >> 31).view(np.uint32),
    "shl.b32 %r3, %r1, 32;": 0 * A,
    "bfe.u32 %r3, %r1, 5, 7;": (A >> 5) & 127,
    "bfe.s32 %r3, %r1, 5, 7;": (signed(A << np.uint32(20)) >> 25).view(np.uint32),
    "bfe.s32 %r3, %r1, 30, 7;": (signed(A) >> 30).view(np.uint32),
    "prmt.b32 %r3, %r1, %r2, 0x5410;": (A & 0xFFFF) | (B << np.uint32(16)),
    "prmt.b32 %r3, %r1, %r2, 0x7632;": (A >> 16) | (B & 0xFFFF0000),
    "lop3.b32 %r3, %r1, %r2, %r1, 0x96;": B,  # exclusive or of three
    "lop3.b32 %r3, %r1, %r2, %r2, 0x40;": 0 * A,  # a and b and not c
    "shf.l.wrap.b32 %r3, %r1, %r2, 8;": (B << np.uint32(8)) | (A >> 24),
    "max.s32 %r3, %r1, %r2;": np.maximum(signed(A), signed(B)).view(np.uint32),
    "neg.s32 %r3, %r1;": (0 - signed(A)).view(np.uint32),
    "setp.lt.s32 %p1, %r1, %r2;\nselp.b32 %r3, %r1, %r2, %p1;": np.minimum(signed(A), signed(B)).view(np.uint32),
    "shfl.sync.up.b32 %r3, %r1, 3, 0, -1;": A[np.where(np.arange(64) % 32 < 3, np.arange(64), np.arange(64) - 3)],
    "shfl.sync.down.b32 %r3, %r1, 3, 31, -1;":
        A[np.where(np.arange(64) % 32 > 28, np.arange(64), np.arange(64) + 3)],
    "shfl.sync.idx.b32 %r3, %r1, 5, 0x1c1f, -1;": A[np.arange(64) // 4 * 4 + 1],
    "redux.sync.max.s32 %r3, %r1, -1;": np.repeat(signed(A).reshape(2, 32).max(1), 32).view(np.uint32),
    "fma.rn.f32 %r3, %r4, %r5, 0f3F800000;": (X.astype(float) * Y + 1).astype(np.float32).view(np.uint32),
    "cvt.rn.f16x2.f32 %r3, %r4, %r5;":
        np.stack([Y, X], 1).astype(np.float16).view(np.uint32)[:, 0],  # the second is the lower half
    "cvt.rn.bf16x2.f32 %r3, %r4, %r5;":
        torch.from_numpy(np.stack([Y, X], 1)).bfloat16().view(torch.int16).numpy().view(np.uint32)[:, 0],
    "cvt.rn.f16.f32 %h1, %r4;\ncvt.f32.f16 %r3, %h1;": X.astype(np.float16).astype(np.float32).view(np.uint32),
    "cvt.rzi.s32.f32 %r3, %r4;": np.trunc(X).astype(np.int32).view(np.uint32),
    "ex2.approx.ftz.f32 %r3, 0fC3000000;": 0 * A,  # 2^-128 is subnormal
    "min.f32 %r3, 0f7FC00000, %r4;": X.view(np.uint32),  # of a number and NaN, the number
    "setp.gt.f32 %p1, %r4, %r5;\nselp.f32 %r3, %r4, %r5, %p1;": np.maximum(X, Y).view(np.uint32),
}


@pytest.mark.parametrize("text", FORMULAS)
def test_arithmetic_is_that_of_numpy(text):
    out, loads = words(), "ld.global.b32 %r1, [%d11];\nld.global.b32 %r2, [%d12];\nld.global.b32 %r4, [%d13];\n"
    run(loads + f"ld.global.b32 %r5, [%d14];\n{text}\nst.global.b32 [%d10], %r3;\n", out, A, B, X.view(np.uint32),
        Y.view(np.uint32))
    assert np.array_equal(out, FORMULAS[text].astype(np.uint32))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_matrices_of_one_warp(kind):
    """out = A B^T by ldmatrix, mma and stmatrix, for A (16, 16) and B (8, 16) in rows of 16 elements."""
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    a, b = (torch.randn(rows, 16, generator=torch.Generator().manual_seed(rows)).to(dtype) for rows in (16, 8))
    out = torch.zeros(16, 8, dtype=dtype)
    body = """
    ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%d6];
    mul.lo.u32 %r5, %r0, 16;
    add.s32 %r5, %r5, %r70;
    st.shared.v4.b32 [%r5], {%r1, %r2, %r3, %r4};
    setp.lt.u32 %p1, %r0, 16;
    @%p1 ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%d7];
    @%p1 st.shared.v4.b32 [%r5 + 512], {%r1, %r2, %r3, %r4};
    bar.warp.sync -1;
    and.b32 %r6, %r0, 15;
    shl.b32 %r7, %r6, 5;
    and.b32 %r8, %r0, 16;
    add.s32 %r9, %r7, %r8;
    add.s32 %r9, %r9, %r70;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r9];
    and.b32 %r6, %r0, 7;
    shl.b32 %r7, %r6, 5;
    and.b32 %r8, %r0, 8;
    shl.b32 %r8, %r8, 1;
    add.s32 %r9, %r7, %r8;
    add.s32 %r9, %r9, %r70;
    ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r14, %r15}, [%r9 + 512];
    mov.b32 %r20, 0;
    mma.sync.aligned.m16n8k16.row.col.f32.KIND.KIND.f32 {%r16, %r17, %r18, %r19}, {%r10, %r11, %r12, %r13}, """ \
        """{%r14, %r15}, {%r20, %r20, %r20, %r20};
    cvt.rn.KINDx2.f32 %r21, %r17, %r16;
    cvt.rn.KINDx2.f32 %r22, %r19, %r18;
    and.b32 %r6, %r0, 15;
    shl.b32 %r7, %r6, 4;
    add.s32 %r9, %r7, %r70;
    stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r9], {%r21, %r22};
    bar.warp.sync -1;
    ld.shared.v2.b32 {%r1, %r2}, [%r30];
    st.global.v2.b32 [%d8], {%r1, %r2};
    """.replace("KIND", kind)
    body = ("mul.wide.u32 %d5, %r0, 16;\nadd.s64 %d6, %d0, %d5;\nadd.s64 %d7, %d1, %d5;\nmul.wide.u32 %d5, %r0, 8;\n"
            "add.s64 %d8, %d2, %d5;\nshl.b32 %r30, %r0, 3;\nadd.s32 %r30, %r30, %r70;\n" + body.replace("KIND", kind))
    run(body, *(tensor.view(torch.int16).numpy() for tensor in (a, b, out)), threads=32)
    truth = (a.double() @ b.double().T).to(dtype)
    assert torch.equal(out, truth) or (out - truth).abs().max() <= 2**-7 * truth.abs().max()


@triton.jit
def product_kernel(a, b, out, K: tl.constexpr, N: tl.constexpr, A_ACROSS: tl.constexpr, B_ACROSS: tl.constexpr):
    m, n, k = tl.arange(0, 64), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + (m[:, None] + k[None, :] * 64 if A_ACROSS else m[:, None] * K + k[None, :]))
    right = tl.load(b + (k[:, None] + n[None, :] * K if B_ACROSS else k[:, None] * N + n[None, :]))
    tl.store(out + m[:, None] * N + n[None, :], tl.dot(left, right))


def multiply(capability, k, n, across=(False, False), device=None):
    a = torch.randn(64, k, generator=torch.Generator().manual_seed(0)).half()
    b = torch.randn(k, n, generator=torch.Generator().manual_seed(1)).half()
    out = torch.zeros(64, n)
    given = [tensor.T.contiguous() if turned else tensor for tensor, turned in zip((a, b), across, strict=True)]
    (device or Device(capability)).launch(product_kernel, (1,), (*given, out), {
        "K": k, "N": n, "A_ACROSS": across[0], "B_ACROSS": across[1], "num_warps": 4})
    return out, a.double() @ b.double()


@pytest.mark.parametrize(
    ("capability", "k", "n", "across"),
    [(80, 32, 32, (False, True)), (90, 64, 64, (False, False)), (90, 32, 16, (True, True)),
     (90, 16, 128, (True, False))])
def test_products_of_tiles(capability, k, n, across):
    device = Device(capability)
    found, truth = multiply(capability, k, n, across, device)
    assert (found - truth).abs().max() < 1e-4
    names = {".".join(i.parts) for i in device.latest.kernel.instructions}
    assert any(name.startswith("wgmma.mma_async" if capability == 90 else "mma.sync") for name in names)


@pytest.mark.parametrize(
    ("without", "message"),
    [("fence.proxy", "without a proxy fence"), ("wgmma.wait_group", "touched before it is waited for"),
     ("bar.sync", "race in shared memory|proxy fence")])
def test_what_a_warp_group_product_needs_is_missed(without, message):
    class Careless(Device):
        def source(self, ptx):
            return re.sub(rf"{re.escape(without)}[^;]*;", "", ptx)

    with pytest.raises(Fault, match=message):
        multiply(90, 64, 32, device=Careless(90))


@triton.jit
def turn_kernel(x, steps, SIZE: tl.constexpr, BARRIER: tl.constexpr):
    i = tl.arange(0, SIZE)
    for step in range(steps):
        value = tl.load(x + (i + 37) % SIZE)
        if BARRIER:
            tl.debug_barrier()
        tl.store(x + i, value + step)
        tl.debug_barrier()


def test_a_kernel_that_lacks_a_barrier_is_reported():
    x = torch.arange(256, dtype=torch.int32)
    Device(80).launch(turn_kernel, (1,), (x, 3), {"SIZE": 256, "BARRIER": True})
    assert torch.equal(x, (torch.arange(256, dtype=torch.int32) + 111) % 256 + 3)
    with pytest.raises(Fault, match=r"race in global memory.*test_ptx_machine.py:\d+.*overwrites"):
        Device(80).launch(turn_kernel, (1,), (x, 3), {"SIZE": 256, "BARRIER": False})
