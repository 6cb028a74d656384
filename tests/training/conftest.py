import pytest

from tests.training import data


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """A data folder with made-up sets."""
    return data.write(tmp_path_factory.mktemp("data"))
