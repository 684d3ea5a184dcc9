"""Loops over samples, compiled by Numba and cached where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F, **options: Any) -> F:
    """The function compiled at its first call, without the GIL; `options` are those of `numba.njit`."""
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # nowhere to keep a cache: home and site-packages are read-only
        return njit(**options)(function)  # type: ignore[no-any-return]
