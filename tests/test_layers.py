"""The layers of the package: imports go downwards only, and each thing from outside has one place."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import fsmux

ROOT = Path(fsmux.__file__).parent

LAYERS: dict[str, int] = {
    "errors": 1,
    "_version": 1,
    **dict.fromkeys(("backoff", "events", "importing", "limits", "records", "columns", "urls", "units"), 2),
    **dict.fromkeys(("wire", "files", "plan"), 3),
    "mux": 4,
    "transfer": 5,
    **dict.fromkeys(("server", "handlers", "context", "tree_handlers", "range_handlers", "auth", "greeting"), 6),
    **dict.fromkeys(("client", "remote_file", "lanes", "questions", "sites", "moving", "job", "checking"), 6),
    **dict.fromkeys(("cli", "__main__"), 7),
}
"""By the first name below the package."""

SIBLINGS = ("wire", "files", "plan")
"""Of one layer, and strangers to one another."""

DEFERRED = {("job", "client")}
"""Imports inside of functions between modules of one layer that need each other."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "typer": ("cli",),
    "rich": ("cli",),
    "click": ("cli",),
    "trio": (
        "mux", "transfer", "server", "client", "handlers", "context", "range_handlers", "tree_handlers", "remote_file",
        "lanes", "questions", "moving", "job", "checking", "cli",
    ),
    "socket": ("mux/transport", "server.py", "cli/serve.py", "cli/measure/rawloop.py"),
    "select": ("mux/transport", "files/syscalls.py", "cli/measure/processes.py"),
    "ctypes": ("files/syscalls.py",),
    "fcntl": ("files/syscalls.py",),
    "mmap": ("mux/buffers.py",),
    "google": ("wire/messages", "wire/_pb2"),
    "scramp": ("auth.py",),
    "subprocess": ("cli",),
}  # fmt: skip
"""Modules from outside, and where alone they may be imported."""

HARMLESS = {
    "DirEntry", "PathLike", "_exit", "cpu_count", "environ", "fsdecode", "fsencode", "fspath", "geteuid", "path",
    "stat_result", "strerror",
}  # fmt: skip
"""Names of ``os`` that touch no file."""

TOUCHES_FILES = ("files/syscalls.py", "mux/transport", "auth.py", "server.py", "cli", "__main__.py")
"""Where ``os`` may be asked to do something: the two seams; files with secrets; the server's own socket; the shell."""

MODULES = sorted(path for path in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def first_name(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def within(path: Path, places: tuple[str, ...]) -> bool:
    name = name_of(path)
    return any(name in (place, f"{place}.py") or name.startswith(f"{place}/") for place in places)


def for_types_only(tree: ast.Module) -> set[int]:
    """Ids of the nodes under ``if TYPE_CHECKING``."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found |= {id(inner) for child in node.body for inner in ast.walk(child)}
    return found


@cache
def imports(path: Path, *, types: bool) -> set[str]:
    """Dotted names that a module imports; with ``types`` those for type checking only, too."""
    tree = ast.parse(path.read_text())
    skipped = set() if types else for_types_only(tree)
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}: a relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "fsmux" else {module}
    return names


def test_every_module_has_its_layer() -> None:
    names = {first_name(path) for path in MODULES} - {"__init__"}
    assert names == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    """What is imported for types only may point anywhere within reach of the reader, but not between siblings."""
    mine = first_name(path)
    if mine == "__init__":
        return
    for name in imports(path, types=False):
        top, *below = name.split(".")
        if top != "fsmux" or not below or below[0] not in LAYERS:
            continue
        other = below[0]
        assert LAYERS[other] <= LAYERS[mine], f"{name_of(path)} imports {name}, which is above it"
    for name in imports(path, types=True):
        top, *below = name.split(".")
        if top == "fsmux" and below and mine in SIBLINGS and below[0] in SIBLINGS:
            assert below[0] == mine, f"{name_of(path)} imports {name}, of a sibling"


def test_modules_of_one_layer_do_not_need_each_other_in_a_circle() -> None:
    needs: dict[str, set[str]] = {}
    for path in MODULES:
        mine = first_name(path)
        for name in imports(path, types=False):
            top, *below = name.split(".")
            if (
                top == "fsmux"
                and below
                and below[0] in LAYERS
                and below[0] != mine
                and (mine, below[0]) not in DEFERRED
            ):
                needs.setdefault(mine, set()).add(below[0])
    done: set[str] = set()
    while rest := needs.keys() - done:
        free = {name for name in rest if needs[name] - done <= set(LAYERS) - needs.keys()}
        assert free, f"a circle among {sorted(rest)}"
        done |= free


@pytest.mark.parametrize("outside", ONLY_IN)
def test_what_comes_from_outside_has_its_place(outside: str) -> None:
    for path in MODULES:
        if any(name.split(".")[0] == outside for name in imports(path, types=False)):
            assert within(path, ONLY_IN[outside]), f"{name_of(path)} imports {outside}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_touched_at_the_seams_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    touching = {name for name in used - HARMLESS if not name.startswith("O_")}
    assert not touching or within(path, TOUCHES_FILES), f"{name_of(path)} uses os.{sorted(touching)}"
    if not within(path, ("cli", "auth.py", "__main__.py")):
        opened = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_open(node.func)]
        assert not opened, f"{name_of(path)} calls open()"


def is_open(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "open"
