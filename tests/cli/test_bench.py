"""``fsmux bench`` in a tiny form, and the arithmetic of what it prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fsmux.cli import app
from fsmux.cli.measure.movers import RawLoop
from fsmux.cli.measure.processes import Failed
from fsmux.cli.measure.runs import GIB, Result, Sample, compete, table
from fsmux.cli.measure.specimens import extent, random_file, random_tree, remove, same_bytes, verify

if TYPE_CHECKING:
    from pathlib import Path


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        app.main(list(args))
    code = caught.value.code
    return code if isinstance(code, int) else 0


@pytest.mark.slow
def test_a_tiny_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmux.cli.bench.STREAMS", (16,))
    assert call("bench", "--dir", str(tmp_path), "--size", "64Ki", "--seconds", "0", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["event"] == "bench"
    assert found["conditions"]["bytes"] == 64 * 1024
    for direction in ("down", "up"):
        results = found["results"][direction]
        assert [result["name"] for result in results] == ["raw loop", "fsmux --streams 16"]
        assert all(len(result["samples"]) == 1 and result["seconds"] > 0 for result in results)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--dir", "{}/missing"], 4, "no such file"),
        (["--dir", "{}", "--size", "8"], 2, "--size 8"),
        (["--dir", "{}", "--size", "1000000T"], 8, "are needed"),
    ],
)
def test_what_cannot_be(
    args: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *(arg.format(tmp_path) for arg in args)) == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [[], ["--overlap"], ["--crc"], ["--overlap", "--crc"]])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_the_raw_loop_moves_files_and_trees(flags: list[str], direction: str, tmp_path: Path) -> None:
    tree = random_tree(tmp_path / "tree", 3, 1000, per_directory=2)
    (tree / "empty").touch()
    large = random_file(tmp_path / "large", 3_000_000)
    loop = RawLoop(tmp_path, *flags)
    for source in (tree, large):
        (result,) = compete([loop], direction, source, tmp_path, 1, lambda _: None)
        assert (result.bytes, result.files) == extent(source)


def sample(seconds: float, cpu: float = 1.0, peak: int = 1) -> Sample:
    return Sample(seconds, cpu, cpu / 2, peak, 2 * peak)


def test_medians_and_ranges() -> None:
    result = Result("one", GIB, 4, [sample(4.0, 3.0, 7), sample(1.0, 1.0, 9), sample(2.0, 2.0, 8)])
    assert (result.seconds, result.range) == (2.0, (1.0, 4.0))
    assert (result.rate, result.files_rate) == (GIB / 2, 2.0)
    assert (result.cpu, result.cpu_of_sides) == (3.0, (2.0, 1.0))
    assert (result.peaks, result.peak) == ((9, 18), 18)
    record = result.record()
    assert record["cpu_seconds_per_gib"] == 3.0
    assert len(record["samples"]) == 3


def test_the_table_compares_with_the_best_and_with_the_baseline() -> None:
    made = table("t", [Result("slow", GIB, 1, [sample(3.0)]), Result("fast", GIB, 1, [sample(1.5)])], "slow")
    best, base = ([*column.cells] for column in made.columns[-2:])
    assert (best, base) == (["1.00", "2.00"], ["0.50", "1.00"])
    assert made.title == "t (1 round)"


class Copier:
    """Moves nothing that it is told to move, but something else."""

    name = "copier"

    def __init__(self, text: str) -> None:
        self._text = text

    def down(self, source: Path, target: Path) -> Sample:
        target.write_text(self._text)
        return sample(1.0)

    up = down


def test_rounds_end_when_the_time_is_over(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("right")
    (result,) = compete([Copier("right")], "down", source, tmp_path, 9, lambda _: None, until=0.0)
    assert len(result.samples) == 1
    assert not (tmp_path / "received").exists()


@pytest.mark.parametrize("text", ["wrong", "righ", "right!"])
def test_what_arrives_differently_counts_for_nothing(text: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("right")
    with pytest.raises(Failed, match="differs"):
        compete([Copier(text)], "up", source, tmp_path, 1, lambda _: None)
    assert not (tmp_path / "received").exists()


def test_a_tree_is_compared_by_names_too(tmp_path: Path) -> None:
    one, other = (random_tree(tmp_path / name, 2, 10) for name in ("one", "other"))
    for path in one.rglob("*"):
        if path.is_file():
            (other / path.relative_to(one)).write_bytes(path.read_bytes())
            assert same_bytes(path, other / path.relative_to(one))
    verify(one, other)
    (other / "more").touch()
    with pytest.raises(Failed, match="3 files"):
        verify(one, other)
    remove(other)
    assert not other.exists()
