"""The store of tones all tests of this folder read."""

from __future__ import annotations

import pytest

from stores import tones_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Three labels, two speakers, six takes; two of them are the test split."""
    return tones_store(tmp_path_factory.mktemp("tones"))
