"""What is left out of libraries, and that nobody else misses it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fsmux.importing import defer, without_package, without_parts

if TYPE_CHECKING:
    from pathlib import Path


def run(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=path, timeout=60
    )
    return done.stdout


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/__init__.py").write_text("print('package')\nfrom slow.core import answer\n")
    (tmp_path / "slow/core.py").write_text("print('core')\nfrom slow.more import answer\n")
    (tmp_path / "slow/more.py").write_text("print('more')\nanswer = 42\n")
    return tmp_path


def test_a_module_is_imported_without_its_package_and_the_package_afterwards(library: Path) -> None:
    code = """
from fsmux.importing import without_package
assert without_package("slow.core").answer == 42
print("then")
assert without_package("slow.core").answer == 42
import slow
assert slow.answer == slow.core.answer == without_package("slow.core").answer == 42
"""
    assert run(code, library).split() == ["core", "more", "then", "package", "core", "more"]


def test_what_is_unused_is_not_loaded_and_nobody_else_misses_it(library: Path) -> None:
    code = """
from fsmux.importing import without_package
core = without_package("slow.core", "heavy", "heavy.part")
assert core.answer == 42 and core.part is core.Class is None
import heavy.part
assert heavy.part.Class is not None
"""
    (library / "slow/core.py").write_text("from heavy import part\nfrom heavy.part import Class\nanswer = 42\n")
    (library / "heavy").mkdir()
    (library / "heavy/__init__.py").write_text("print('heavy')\n")
    (library / "heavy/part.py").write_text("print('part')\nclass Class: ...\n")
    assert run(code, library).split() == ["heavy", "part"]


def test_what_is_loaded_already_is_used(library: Path) -> None:
    code = """
import heavy
from fsmux.importing import without_package
assert without_package("slow.core", "heavy").Class is heavy.Class
assert heavy.Class is not None
"""
    (library / "slow/core.py").write_text("from heavy import Class\n")
    (library / "heavy.py").write_text("class Class: ...\n")
    assert run(code, library) == ""


def test_a_package_that_is_imported_already_stays(library: Path) -> None:
    code = """
import slow
from fsmux.importing import without_package
assert without_package("slow.core") is slow.core
import sys
assert sys.modules["slow"] is slow
"""
    assert run(code, library).split() == ["package", "core", "more"]


def test_a_package_is_imported_without_parts_that_it_only_passes_on(library: Path) -> None:
    code = """
from fsmux.importing import without_parts
slow = without_parts("slow", "slow.core", "slow.none")
assert slow.answer is None
assert without_parts("slow", "slow.core") is slow
print("then")
from slow.core import answer
assert answer == 42
"""
    assert run(code, library).split() == ["package", "then", "core", "more"]


def test_a_package_that_needs_a_part_has_it(library: Path) -> None:
    code = """
from fsmux.importing import without_parts
slow = without_parts("slow", "slow.core")
import slow.core
assert slow.answer == slow.core.answer == 42
assert without_parts("slow", "slow.core") is slow
"""
    with (library / "slow/__init__.py").open("a") as file:
        file.write("from slow.other import one\nassert answer + one == 43\n")
    (library / "slow/other.py").write_text("one = 1\n")
    assert run(code, library).split() == ["package", "package", "core", "more"]


def test_a_deferred_module_is_loaded_when_it_is_used(library: Path) -> None:
    code = """
import slow
from fsmux.importing import defer
defer("slow.later")
from slow import later
print("before")
assert later.value == 7
defer("slow.later")
defer("slow.none")
assert later.value == 7
"""
    (library / "slow/later.py").write_text("print('later')\nvalue = 7\n")
    assert run(code, library).split() == ["package", "core", "more", "before", "later"]


def test_what_does_not_exist_is_said_where_it_is_asked_for() -> None:
    defer("fsmux.no_such_module")
    for name in ("fsmux.no_such_module", "no_such_package.core"):
        for without in (without_package, without_parts):
            with pytest.raises(ImportError):
                without(name)
