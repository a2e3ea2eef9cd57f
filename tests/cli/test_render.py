"""What a transfer looks like: events in, text out, on a clock that the test turns."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from fsmux import events
from fsmux.cli.render import LINE_SECONDS, MAX_FILE_BARS, Bars, Painter, Plain, Reporter, Silent, bars, choose_painter
from fsmux.cli.tally import Tally
from fsmux.errors import NoSpace

MIB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stage:
    """A reporter with its clock and what it wrote."""

    def __init__(self, progress: str = "auto", *, terminal: bool = False, verbosity: int = 0, **flags: bool) -> None:
        self.now = 0.0
        self.err = Terminal() if terminal else io.StringIO()
        self.out = io.StringIO()
        json_, dry_run = flags.get("json", False), flags.get("dry_run", False)
        painter = choose_painter(
            progress, self.err, 0.0, quiet=verbosity < 0, json=json_, dry_run=dry_run, dumb=flags.get("dumb", False)
        )
        self.painter: Painter = painter
        self.reporter = Reporter(painter, self.out, lambda: self.now, verbosity=verbosity, json=json_, dry_run=dry_run)

    def play(self, *sequence: events.Event, seconds: float = 1.0) -> None:
        for event in sequence:
            self.reporter(event)
            self.now += seconds
            self.reporter.tick()

    @property
    def lines(self) -> list[str]:
        return self.err.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


STORY = (
    events.Scanning(2, 3 * MIB),
    events.Planned(2, 3 * MIB, 1, 10),
    events.FileSkipped("old", 10, "up to date"),
    events.FileStarted("dir/a", 2 * MIB, MIB),
    events.FileProgress("dir/a", MIB),
    events.FileDone("dir/a", 2 * MIB, MIB, MIB, "0badcafe", True),
    events.ChunkHealed("b", 3, 1),
    events.Retrying("b", 2, 1.5, "connection lost"),
    events.FileFailed("b", "NO_SPACE", "b: no space left on the device", False),
    events.Summary(1, 2 * MIB, MIB, MIB, 1, 1, 2, 4.0),
)


def test_plain_lines_every_few_seconds_and_a_summary() -> None:
    stage = Stage()
    stage.play(*STORY)
    stage.reporter.close()
    assert stage.out.getvalue() == ""
    assert "2 files, 2.00 MiB / 3.00 MiB, " in next(line for line in stage.lines if "ETA" in line)
    progress = [line for line in stage.lines if "ETA" in line or line.startswith("scanning")]
    assert len(progress) == len(STORY) // LINE_SECONDS
    assert "fsmux: b: no space left on the device" in stage.lines
    assert "fsmux: b: connection lost; trying again in 1.50 s (attempt 2)" in stage.lines
    assert stage.lines[-1] == (
        "1 file, 2.00 MiB, 1 FAILED: sent 1.00 MiB, skipped 1, resumed 1.00 MiB, retries 2, 4.00 s, 256 KiB/s"
    )


def test_quiet_says_nothing_but_errors() -> None:
    stage = Stage(verbosity=-1)
    stage.play(*STORY, seconds=60)
    stage.reporter.close()
    assert stage.lines == ["fsmux: b: no space left on the device"]


def test_verbose_names_files() -> None:
    stage = Stage("never", verbosity=1)
    stage.play(events.MappedTo("a -> b"), *STORY)
    assert "a -> b" in stage.lines
    assert "dir/a (1.00 MiB resumed)" in stage.lines
    assert "old: up to date" not in stage.lines
    stage = Stage("never", verbosity=2)
    stage.play(*STORY)
    assert "old: up to date" in stage.lines


def test_never_has_no_progress_but_the_last_line() -> None:
    stage = Stage("never")
    stage.play(events.Planned(0, 0, 0, 0), seconds=60)
    stage.reporter.close()
    assert len(stage.lines) == 1


def test_json_is_a_contract() -> None:
    stage = Stage(json=True)
    stage.play(*STORY)
    stage.reporter.close()
    assert all(item["v"] == 1 for item in stage.objects)
    by_event = {item["event"]: item for item in stage.objects}
    assert {"plan", "file_start", "progress", "file_done", "retry", "error", "summary"} <= set(by_event)
    assert {"path", "bytes", "bytes_sent", "bytes_resumed", "digest"} <= set(by_event["file_done"])
    assert by_event["error"] == {
        "event": "error", "v": 1, "code": "NO_SPACE", "path": "b",
        "message": "b: no space left on the device", "retryable": False,
    }  # fmt: skip
    wanted = {"files", "bytes", "bytes_sent", "bytes_resumed", "skipped", "retries", "seconds"}
    assert wanted <= set(stage.objects[-1])
    assert stage.objects[-1]["event"] == "summary"
    assert [item["event"] for item in stage.objects].count("summary") == 1
    assert "ETA" not in stage.err.getvalue()


def test_json_after_a_failure_still_ends_with_a_summary() -> None:
    stage = Stage(json=True)
    stage.reporter.fail(NoSpace("disk: full"))
    stage.reporter.close()
    assert [item["event"] for item in stage.objects] == ["error", "summary"]
    assert stage.lines == ["fsmux: disk: full"]


def test_a_dry_run_is_data() -> None:
    stage = Stage(dry_run=True)
    stage.play(
        events.MappedTo("src/ -> host:/dst"), events.Planned(2, 2048, 3, 1), events.WouldDo("send", "a\x1b[2J", 1024)
    )  # fmt: skip
    stage.reporter.close()
    assert stage.out.getvalue() == "src/ -> host:/dst\nwould send a\\x1b[2J\n"
    assert stage.lines[-1].startswith("would transfer 2 files, 2.00 KiB")


HOSTILE = "a\x1b]0;owned\x07\n\u202eb\udcff"


@pytest.mark.parametrize(
    "event",
    [
        events.FileFailed(HOSTILE, "IO", HOSTILE, False),
        events.Warned(HOSTILE, HOSTILE),
        events.Retrying(HOSTILE, 1, 1, HOSTILE),
        events.ChunkHealed(HOSTILE, 1, 1),
        events.FileDone(HOSTILE, 1, 1, 0, "00", True),
        events.FileSkipped(HOSTILE, 1, HOSTILE),
        events.MappedTo(HOSTILE),
        events.FileStarted(HOSTILE, 10, 0),
    ],
)
@pytest.mark.parametrize("json_", [False, True])
def test_nothing_of_a_peer_reaches_a_terminal_or_breaks_a_line(event: events.Event, json_: bool) -> None:
    stage = Stage("never", verbosity=2, json=json_)
    stage.play(event)
    written = stage.err.getvalue() + stage.out.getvalue()
    assert all(line.isprintable() and line.isascii() for line in written.splitlines())
    assert len(stage.lines) <= 1
    assert json_ or stage.out.getvalue() == ""


# ---- bars -----------------------------------------------------------------------------------------------------------


def picture(tally: Tally, now: float = 1.0) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(bars(tally, now, limit=MAX_FILE_BARS))
    return capture.get()


def test_the_total_is_on_top_and_the_files_below() -> None:
    tally = Tally(0.0)
    for event in STORY[:5]:
        tally(event)
    rows = picture(tally).splitlines()
    assert rows[0].startswith("total: 0/2 files")
    assert "2.00 MiB / 3.00 MiB" in rows[0]
    assert "1.00 MiB/s" in rows[0]
    assert "ETA 1 s" in rows[0]
    assert rows[1].startswith("dir/a")
    assert "100 %" in rows[1]


def test_while_scanning_it_says_so_and_promises_no_end() -> None:
    tally = Tally(0.0)
    tally(events.Scanning(1234, 5 * MIB))
    assert picture(tally).startswith("scanning: 0/1,234 files")
    assert ">= 5.00 MiB" in picture(tally)
    assert "ETA" not in picture(tally)


def test_a_thousand_files_are_a_few_bars_and_a_number() -> None:
    tally = Tally(0.0)
    for number in range(1000):
        tally(events.FileStarted(f"file{number}", 10, 0))
    rows = picture(tally).splitlines()
    assert len(rows) == 1 + MAX_FILE_BARS + 1
    assert rows[-1].startswith(f"and {1000 - MAX_FILE_BARS} files more")


def test_empty_and_shrinking_files_do_not_break_the_picture() -> None:
    tally = Tally(0.0)
    tally(events.Planned(0, 0, 0, 0))
    tally(events.FileStarted("empty", 0, 0))
    tally(events.FileStarted("less", 5, 0))
    tally(events.FileProgress("less", 50))
    assert "5 B / 5 B" in picture(tally)
    assert HOSTILE not in picture(tally)


def test_bars_leave_nothing_but_lines_behind() -> None:
    stage = Stage(terminal=True)
    assert isinstance(stage.painter, Bars)
    stage.play(*STORY)
    stage.reporter.close()
    text = stage.err.getvalue()
    assert "\x1b[?25l" in text, "the cursor was hidden"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "and is shown again"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "total: 1/2 files" in plain
    assert plain.rstrip().endswith("256 KiB/s")


def test_no_color_means_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-7])[0-9;]*m")
    stage = Stage(terminal=True)
    stage.play(*STORY[:5])
    assert colour.search(stage.err.getvalue())
    monkeypatch.setenv("NO_COLOR", "1")
    stage = Stage(terminal=True)
    stage.play(*STORY[:5])
    assert not colour.search(stage.err.getvalue())


@pytest.mark.parametrize(
    ("progress", "flags", "painter"),
    [
        ("auto", {"terminal": True}, Bars),
        ("auto", {"terminal": False}, Plain),
        ("auto", {"terminal": True, "dumb": True}, Plain),
        ("auto", {"terminal": True, "json": True}, Bars),
        ("auto", {"terminal": False, "json": True}, Silent),
        ("auto", {"terminal": True, "dry_run": True}, Silent),
        ("always", {"terminal": False}, Bars),
        ("never", {"terminal": True}, Silent),
        ("always", {"terminal": True, "verbosity": -1}, Silent),
    ],
)
def test_which_picture(progress: str, flags: dict[str, Any], painter: type) -> None:
    assert type(Stage(progress, **flags).painter) is painter


def test_an_event_never_writes() -> None:
    class Blocked(io.StringIO):
        def write(self, text: str) -> int:
            raise AssertionError("an observer must not touch the terminal")

    reporter = Reporter(Silent(Blocked()), Blocked(), lambda: 0.0, verbosity=2, json=True)
    for event in STORY:
        reporter(event)
