"""Who decides what a crash leaves: all possibilities one after the other, or some at random."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

FEW: Final = 64
"""Ways to crash up to which all of them are tried."""


class Chooser:
    """Answers the questions of one crash. ``data`` and ``names`` are how likely each is kept, by its kind.

    With ``apart`` some files are wholly there and some not at all, which is how a journal gets ahead of its part.
    """

    def __init__(self, rng: random.Random, data: float, names: float, *, apart: bool = False) -> None:
        self._rng = rng
        self._data = self._here = data
        self._names = names
        self._apart = apart

    def facts(self) -> bool:
        """Whether mode and times are the new ones."""
        return self._rng.random() < self._names

    def begin_file(self, size: int) -> None:
        """The next questions are about another file, which has so many bytes."""
        if self._apart:
            self._here = self._rng.choice((0.0, 1.0, self._data))

    def keep(self) -> bool:
        """Whether a piece is there."""
        return self._rng.random() < self._here

    def upto(self, count: int) -> int:
        """How many of so many changes in a row are there."""
        kept = 0
        while kept < count and self._rng.random() < self._names:
            kept += 1
        return kept


class Scripted(Chooser):
    """Takes its answers from a list, zeros where it ends, and notes how many each question had."""

    def __init__(self, script: list[int]) -> None:
        self.script = script
        self.limits: list[int] = []

    def begin_file(self, size: int) -> None:
        pass

    def keep(self) -> bool:
        return bool(self.upto(1))

    def facts(self) -> bool:
        return bool(self.upto(1))

    def upto(self, count: int) -> int:
        at = len(self.limits)
        self.limits.append(count)
        return self.script[at] if at < len(self.script) else 0

    def following(self) -> list[int] | None:
        """The next script in order; None after the last."""
        script = [*self.script, *[0] * (len(self.limits) - len(self.script))][: len(self.limits)]
        while script:
            last = script.pop()
            if last < self.limits[len(script)]:
                return [*script, last + 1]
        return None


def choosers(ways: int, samples: int, rng: random.Random) -> Iterator[Chooser]:
    """All ways to crash if there are few, else so many of them at random."""
    if ways <= min(FEW, samples):
        script: list[int] | None = []
        while script is not None:
            chooser = Scripted(script)
            yield chooser
            script = chooser.following()
        return
    moods = itertools.cycle([(0.0, 1.0), (0.5, 1.0), (0.5, 1.0), (0.9, 0.9), (1.0, 0.0), (0.5, 0.5), (0.1, 0.9)])
    for number, (data, names) in enumerate(itertools.islice(moods, samples)):
        yield Chooser(rng, data, names, apart=number % 2 == 1)
