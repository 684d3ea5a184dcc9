from __future__ import annotations

import numba

from wavegen.audio import compiled as module


def double(x):
    return 2 * x


def test_where_no_cache_can_be_kept_it_is_compiled_anew(monkeypatch):
    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available for this file")
        return numba.njit(**options)

    monkeypatch.setattr(module, "njit", njit)
    assert module.compiled(double)(21) == 42
    assert [options.get("cache", False) for options in asked] == [True, False]
    assert all(options["nogil"] for options in asked)


def test_options_are_handed_on():
    assert module.compiled(double, fastmath=True).targetoptions["fastmath"]
