"""Extended attributes, both ways, by the command."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from fsmux.limits import MAX_XATTRS, XATTR_COST

from .kit import Url, good, inventory
from .test_kept import EVERY, Way, direction, odd_tree, root_only, way

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["direction", "way"]  # fixtures

HAVE = tuple(name for name in EVERY if name != "symlink")
Xattrs = dict[str, dict[str, bytes]]


@pytest.fixture(autouse=True)
def _supported(tmp_path: Path) -> None:
    if not hasattr(os, "setxattr"):
        pytest.skip("extended attributes are kept on Linux only")
    try:
        os.setxattr(tmp_path, "user.probe", b"")
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} keeps no extended attributes of users: {error}")


def marked(root: Path) -> Path:
    """The odd tree, of which everything but the symbolic link has attributes of its own."""
    odd_tree(root)
    for number, name in enumerate(HAVE):
        path = root / name
        facts = path.stat()
        path.chmod(0o700)
        os.setxattr(path, "user.name", os.fsencode(name))
        os.setxattr(path, "user.grün \xff".encode(), bytes(range(256)) * number)
        path.chmod(facts.st_mode & 0o777)
    return root


def xattrs(root: Path, prefix: str = "") -> Xattrs:
    """The attributes of all but symbolic links, whose names begin so."""
    found: Xattrs = {}
    for path in (root, *root.rglob("*")):
        if not path.is_symlink() and ".fsmux" not in path.parts:
            names = [name for name in os.listxattr(path) if name.startswith(prefix)]
            found[str(path.relative_to(root))] = {name: os.getxattr(path, name) for name in names}
    return found


@pytest.mark.parametrize("lanes", ["1", "4"])
def test_they_are_kept_when_asked_for(url: Url, way: Way, lanes: str) -> None:
    marked(way.source)
    os.link(way.source / "small", way.source / "d/linked")
    os.utime(way.source / "d", ns=(1, 5))
    words = ("transfer", "--json", "-v", "-j", lanes, *way.words(url))
    good(*words)
    assert not any(xattrs(way.target, "user.").values())
    summary = good(*words, "--xattrs").summary  # what is there gets them, and nothing is sent for it
    assert summary["bytes_sent"] == 0
    assert xattrs(way.target, "user.") == xattrs(way.source, "user.")
    assert inventory(way.target) == inventory(way.source)
    again = good(*words, "--xattrs")
    assert again.summary["files"] == 0
    assert not [event for event in again.events if event["event"] in ("changed", "warning")]
    shutil.rmtree(way.target)
    good(*words, "--xattrs")
    assert xattrs(way.target, "user.") == xattrs(way.source, "user.")
    assert inventory(way.target) == inventory(way.source)


def test_what_differs_in_them_alone_is_set_and_not_sent(url: Url, way: Way) -> None:
    marked(way.source)
    words = ("transfer", "--json", "--xattrs", *way.words(url))
    good(*words)
    for name in HAVE:
        os.setxattr(way.source / name, "user.name", b"another value")
        os.removexattr(way.source / name, "user.grün \xff".encode())
        os.setxattr(way.target / name, "user.of the target", b"alone")
    assert good(*words).summary["bytes_sent"] == 0
    assert xattrs(way.target, "user.") == xattrs(way.source, "user.")
    assert xattrs(way.target)["small"]["user.name"] == b"another value"
    assert inventory(way.target) == inventory(way.source)
    for name in HAVE:
        os.removexattr(way.source / name, "user.name")
    assert good(*words).summary["bytes_sent"] == 0
    assert not any(xattrs(way.target, "user.").values())


def test_a_dry_run_says_so_and_sets_nothing(url: Url, way: Way) -> None:
    marked(way.source)
    good("transfer", *way.words(url))
    dry = good("transfer", "-n", "--json", "--xattrs", *way.words(url))
    assert {event["path"] for event in dry.events if event.get("action") == "set attributes of"} >= {
        "small",
        "large",
        "d",
    }
    assert not any(xattrs(way.target, "user.").values())


def test_those_of_single_files_are_kept(url: Url, way: Way) -> None:
    marked(way.source)
    way.target.mkdir()
    source, target = (way.source, url("tree")) if way.up else (url("tree"), way.target)
    for name in ("small", "large"):
        words = ("transfer", "--json", "--xattrs", f"{source}/{name}", str(target))
        good(*words)
        assert xattrs(way.target, "user.")[name] == xattrs(way.source, "user.")[name]
        os.setxattr(way.target / name, "user.name", b"other")
        os.setxattr(way.target / name, "user.more", b"")
        assert good(*words).summary["bytes_sent"] == 0
        assert xattrs(way.target, "user.")[name] == xattrs(way.source, "user.")[name]
        assert inventory(way.target)[name] == inventory(way.source)[name]
        assert good(*words).summary["files"] == 0


def test_those_of_many_single_files_are_kept(url: Url, way: Way) -> None:
    way.source.mkdir()
    way.target.mkdir()
    for number in range(20):
        (way.source / f"{number}").write_bytes(b"%d" % number)
        os.setxattr(way.source / f"{number}", "user.number", b"%d" % number)
    source, target = (way.source, url("tree")) if way.up else (url("tree"), way.target)
    owner = ()
    if os.geteuid() == 0:
        owner = ("--owner",)
        os.chown(way.source / "7", 12, 34)
    good("transfer", "--xattrs", *owner, *[f"{source}/{number}" for number in range(20)], str(target))
    assert xattrs(way.target, "user.")["7"] == {"user.number": b"7"}
    assert xattrs(way.target, "user.") | {".": {}} == xattrs(way.source, "user.") | {".": {}}
    if owner:
        assert ((way.target / "7").stat().st_uid, (way.target / "7").stat().st_gid) == (12, 34)


def test_an_entry_with_too_many_arrives_without_them(url: Url, way: Way) -> None:
    odd_tree(way.source)
    value = b"v" * 20
    names = [f"user.{number:02}" for number in range(MAX_XATTRS // (XATTR_COST + 27) + 2)]
    for name in ("small", "large", "d"):
        try:
            for one in names:
                os.setxattr(way.source / name, one, value)
        except OSError as error:
            pytest.skip(f"the file system has no room for so many attributes: {error}")
    os.setxattr(way.source / "d/open", "user.few", b"1")
    outcome = good("transfer", "--json", "--xattrs", *way.words(url))
    assert inventory(way.target) == inventory(way.source)
    assert xattrs(way.target, "user.") == {name or ".": {} for name in HAVE} | {"d/open": {"user.few": b"1"}}
    warned = [event for event in outcome.events if event["event"] == "warning"]
    assert sorted(event["path"] for event in warned) == ["d", "large", "small"]
    assert {event["message"].partition(":")[0] for event in warned} == {"its extended attributes are not kept"}
    os.setxattr(way.target / "small", "user.there", b"stays")
    assert good("transfer", "--json", "--xattrs", *way.words(url)).summary["files"] == 0
    assert xattrs(way.target, "user.")["small"] == {"user.there": b"stays"}
    source, target = (way.source, url("tree")) if way.up else (url("tree"), way.target)
    single = good("transfer", "--json", "--xattrs", f"{source}/large", str(target))
    (warning,) = [event for event in single.events if event["event"] == "warning"]
    assert warning["path"].endswith("large")


@root_only
def test_root_keeps_those_of_symbolic_links(url: Url, way: Way) -> None:
    def of(root: Path) -> dict[str, bytes]:
        link = root / "symlink"
        return {
            name: os.getxattr(link, name, follow_symlinks=False)
            for name in os.listxattr(link, follow_symlinks=False)
            if not name.startswith("security.")
        }

    odd_tree(way.source)
    (way.source / "symlink").unlink()
    (way.source / "symlink").symlink_to("nowhere")
    os.setxattr(way.source / "symlink", "trusted.a", b"1", follow_symlinks=False)
    words = ("transfer", "--json", "-v", "--xattrs", *way.words(url))
    good(*words)
    assert of(way.target) == {"trusted.a": b"1"}
    again = good(*words)
    assert not [event for event in again.events if event["event"] in ("changed", "warning")]
    os.setxattr(way.source / "symlink", "trusted.a", b"2", follow_symlinks=False)
    os.setxattr(way.target / "symlink", "trusted.b", b"3", follow_symlinks=False)
    good(*words)
    assert of(way.target) == {"trusted.a": b"2"}
    assert inventory(way.target) == inventory(way.source)
    (way.target / "symlink").unlink()
    source, target = (way.source, url("tree")) if way.up else (url("tree"), way.target)
    single = ("transfer", "--json", "-v", "--xattrs", f"{source}/symlink", str(target))
    good(*single)
    assert of(way.target) == {"trusted.a": b"2"}
    assert not [event for event in good(*single).events if event["event"] in ("changed", "warning")]


@root_only
def test_root_keeps_what_only_root_may_see_and_never_what_is_the_kernels(url: Url, way: Way) -> None:
    odd_tree(way.source)
    good("transfer", *way.words(url))
    for name in HAVE:
        os.setxattr(way.source / name, "trusted.kept", b"1")
        os.setxattr(way.target / name, "trusted.removed", b"2")
        os.setxattr(way.source / name, "security.fsmux", b"3")
    os.setxattr(way.target / "small", "security.there", b"4")
    assert good("transfer", "--json", "--xattrs", *way.words(url)).summary["bytes_sent"] == 0
    assert xattrs(way.target, "trusted.") == {name or ".": {"trusted.kept": b"1"} for name in HAVE}
    security = {name for found in xattrs(way.target, "security.").values() for name in found}
    assert "security.fsmux" not in security
    assert "security.there" in security


def test_a_file_that_is_repaired_keeps_those_that_it_has(url: Url, served: Path, there: Path) -> None:
    (served / "f").write_bytes(bytes(3_000_000))
    good("transfer", "--manifest", there / "m", url("f"), there / "f")
    os.setxattr(there / "f", "user.mine", b"1")
    with open(there / "f", "r+b") as file:
        file.write(b"rotten")
    good("transfer", "--repair", "--xattrs", "--manifest", there / "m", url("f"), there / "f")
    assert (there / "f").read_bytes() == bytes(3_000_000)
    assert os.getxattr(there / "f", "user.mine") == b"1"
