"""torchaudio's failures become one readable error."""

from __future__ import annotations

import importlib
import types

import pytest

from wavegen.errors import MissingBackendError
from wavegen.integrations.torchaudio import import_torchaudio


@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'torchaudio'"),
        OSError("libcudart.so.13: cannot open shared object file\nsecond line"),
        RuntimeError("Detected that PyTorch and TorchAudio were compiled with different CUDA versions."),
    ],
)
def test_a_failure_says_what_to_do(failure, monkeypatch):
    def fail(name: str) -> types.ModuleType:
        raise failure

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingBackendError) as caught:
        import_torchaudio("the download of LJSpeech")
    message = str(caught.value)
    assert str(failure).splitlines()[0] in message
    assert "second line" not in message
    assert 'To use the download of LJSpeech: pip install "torch>=2.11,<2.15" torchaudio==2.11.0' in message
    assert caught.value.exit_code == 4


def test_where_it_works_it_is_handed_over(monkeypatch):
    module = types.ModuleType("torchaudio")
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    assert import_torchaudio("anything") is module
