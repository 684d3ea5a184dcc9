from __future__ import annotations

import logging

import pytest

from networks import make_wavenet
from wavegen.config import Calibration, PrecisionFigures
from wavegen.engines import build_engine
from wavegen.engines.numba_engine import KERNELS_VARIABLE, speed_order
from wavegen.engines.precision import choose_precision, short
from wavegen_kernels.cpu import host

needs_vectors = pytest.mark.skipif(host.vector_target() is None, reason="no vector instruction set known here")
ORDER = ("i8", "i8x15", "i16", "f32")


def calibration(limit=1e-3, **kl):
    figures = {name: PrecisionFigures(kl=value, bits=4.0, bits_change=0.0) for name, value in kl.items()}
    return Calibration(store_digest="", ranges_split="train", split="test", clips=1, samples=10, limit=limit,
                       precisions=figures)


@pytest.mark.parametrize(
    ("measured", "order", "expected", "reason"),
    [
        (calibration(i8=3e-3, i8x15=4.1e-4, i16=1e-6, f32=0), ORDER, "i8x15", "auto: KL 4e-4 under 1e-3"),
        (calibration(i8=3e-3, i8x15=4.1e-4, i16=1e-6, f32=0, limit=1e-2), ORDER, "i8", "auto: KL 3e-3 under 1e-2"),
        (calibration(i8=3e-3, i8x15=4.1e-4, i16=1e-6, f32=0), ("i16", "f32"), "i16", "auto: KL 1e-6 under 1e-3"),
        (calibration(i8=1e-4, i16=1e-6), ("f32",), "f32", "auto: the fastest here"),
        (calibration(i8=0.5, i16=0.02), ORDER, "f32",
         "auto: KL of i8 5e-1 over 1e-3, KL of i16 2e-2 over 1e-3"),
        (calibration(), ORDER, "f32", "auto: the fastest here"),
        (None, ORDER, "f32", "auto: the model is not calibrated"),
    ],
)
def test_auto_takes_the_fastest_that_is_close_enough(measured, order, expected, reason):
    assert choose_precision(measured, order) == (expected, reason)


@pytest.mark.parametrize(
    ("products", "expected"),
    [("vnni", ORDER), ("avx512bw", ("i16", "f32")), ("avx2", ("i16", "f32")), ("generic", ("f32",))],
)
@needs_vectors
def test_the_order_follows_from_the_instructions(products, expected, monkeypatch):
    monkeypatch.setattr(host, "integer_products", lambda: products)
    assert speed_order() == expected
    monkeypatch.setenv(KERNELS_VARIABLE, "plain")
    assert speed_order() == ("f32",), "plain loops multiply integers one by one"


def test_numbers_are_said_in_short():
    assert [short(x) for x in (1e-3, 0.00041, 2.0, 0.0, 1.2e-12)] == ["1e-3", "4e-4", "2e0", "0e0", "1e-12"]


def test_the_choice_is_logged_and_kept(caplog):
    with caplog.at_level(logging.INFO, logger="wavegen.engines"):
        engine = build_engine(make_wavenet(), "numba")
    assert engine.precision == "f32" and engine.choice == "auto: the model is not calibrated"
    assert "precision f32 (auto: the model is not calibrated)" in caplog.text
    assert build_engine(make_wavenet(), "numba", "f32").choice == ""
