"""The examples are programs that run: each is started as a user starts it, against the example server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"
README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    served = tmp_path / "served"
    served.mkdir()
    command = [sys.executable, str(EXAMPLES / "server.py"), str(served)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        found = re.match(r"FSMUX_TOKEN=(\S+) fsmux ls (\S+)", server.stdout.readline())
        assert found is not None
        monkeypatch.setenv("FSMUX_TOKEN", found[1])
        yield found[2]
        server.terminate()


def run(name: str, *args: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_upload_list_and_download(url: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode() * 100_000)
    uploaded = run("upload.py", url, "a", "b", cwd=tmp_path)
    assert sorted(uploaded.splitlines()) == [f"{name}: 1 files, 100000 bytes sent, 0 failed" for name in "ab"]
    assert run("list.py", url, "a", cwd=tmp_path).splitlines() == ["file 100000 b'aaaaaaaa'"]
    downloaded = run("download.py", url, "b", "back", cwd=tmp_path)
    assert "b/file" in downloaded or "'file'" in downloaded, "each file is shown"
    assert downloaded.splitlines()[-1] == "1 files, 0 up to date, 0 failed"
    assert (tmp_path / "back" / "b" / "file").read_bytes() == b"b" * 100_000


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 25


def test_the_program_in_the_readme_runs(url: str, tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert program is not None
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"12345")
    run("upload.py", url, "photos", cwd=tmp_path)
    text = (
        program[1]
        .replace('"fsmux://localhost"', repr(url))
        .replace('token="…"', f"token={os.environ['FSMUX_TOKEN']!r}")
    )
    (tmp_path / "program.py").write_text(text)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 files, 5 bytes sent, 0 resumed"
    assert (tmp_path / "backup" / "photos" / "one.jpg").read_bytes() == b"12345"
