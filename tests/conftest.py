"""Where the files of tests are, which way they go, and how patient property tests are."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

# How long an example takes says how busy the machine is. The rest is as it was chosen: where CI is set, the same
# examples each time.
settings.register_profile("patient", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("patient")


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
