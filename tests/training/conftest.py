from pathlib import Path

import pytest

from bsk.data.sources import prepare
from bsk.data.store import DataFile, open_data


@pytest.fixture
def data(toy: Path) -> DataFile:
    """The toy data, opened."""
    return open_data(toy)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataFile:
    """The digits, prepared and opened."""
    path = tmp_path_factory.mktemp("data") / "digits.safetensors"
    prepare("digits", None, path)
    return open_data(path)
