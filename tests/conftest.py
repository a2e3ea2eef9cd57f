"""Where the files of tests are, and which way they go."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def pytest_collection_finish() -> None:
    """What is there before the first test is no garbage of any test.

    Some look for what they have left, and going through all that was collected as well took them 0.1 s each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=("up", "down"))
def direction(request: pytest.FixtureRequest) -> str:
    """Whether the client has the file or lacks it."""
    return str(request.param)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The directory that the server serves."""
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the client's."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"
