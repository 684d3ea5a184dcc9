"""torchaudio as an independent witness."""

from __future__ import annotations

from types import ModuleType

import pytest

from wavegen.errors import MissingBackendError
from wavegen.integrations.torchaudio import import_torchaudio


@pytest.fixture(scope="session")
def torchaudio() -> ModuleType:
    try:
        return import_torchaudio("the parity tests")
    except MissingBackendError as error:
        pytest.skip(str(error))
