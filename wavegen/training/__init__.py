"""Training on Lightning's Trainer (`pip install wavegen[train]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wavegen.errors import MissingBackendError

if TYPE_CHECKING:
    from wavegen.training.trainer import fit

__all__ = ["fit"]


def __getattr__(name: str) -> Any:
    # Lightning is an extra and slow to import: it is loaded when a training begins.
    if name != "fit":
        raise AttributeError(name)
    try:
        from wavegen.training.trainer import fit
    except ModuleNotFoundError as error:
        raise MissingBackendError(
            f'training needs {error.name}, which is not installed; run pip install "wavegen[train]"') from error
    return fit
