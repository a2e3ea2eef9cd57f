"""The scenes of the guards, and that each mutant can be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim.guards import GUARDS
from tests.sim.mutants import MUTANTS, ROOT, Mutant

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("guard", GUARDS)
def test_rules(guard: Callable[[], None]) -> None:
    guard()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_place_of_a_mutant_is_there_once(mutant: Mutant) -> None:
    assert (ROOT / "fsmux" / mutant.path).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
