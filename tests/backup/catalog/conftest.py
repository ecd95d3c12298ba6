"""Catalogs lie where a sync costs nothing: thousands are made here."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.tape import MEMORY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """See pytest."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)
