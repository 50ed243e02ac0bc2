from pathlib import Path

import pytest

from bsk.data.store import DataFile, open_data


@pytest.fixture
def data(toy: Path) -> DataFile:
    """The toy data, opened."""
    return open_data(toy)
