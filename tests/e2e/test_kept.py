"""What a transfer keeps of files beside their bytes, both ways, by the command."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from .kit import MIB, Url, finish, good, inventory, run, visible, wait_until, wait_until_tidy
from .test_resume import start_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.relay import Relay

DIRECTIONS = ["up", "down"]


@pytest.fixture(params=DIRECTIONS)
def direction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Way:
    """One direction: where to make the source, where it arrives, and the words of the command between."""

    def __init__(self, direction: str, served: Path, there: Path) -> None:
        self.up = direction == "up"
        self.source, self.target = (there / "tree", served / "tree") if self.up else (served / "tree", there / "tree")

    def words(self, url: Callable[[str], str]) -> list[str]:
        if self.up:
            return [f"{self.source}/", url("tree")]
        return [url("tree/"), os.fspath(self.target)]


@pytest.fixture
def way(direction: str, served: Path, there: Path) -> Way:
    return Way(direction, served, there)


def linked_tree(root: Path) -> Path:
    """Files with several names: small and large ones, empty ones, in and across directories."""
    (root / "a/deep").mkdir(parents=True)
    (root / "z").mkdir()
    (root / "a/small").write_bytes(os.urandom(5000))
    (root / "a/empty").write_bytes(b"")
    (root / "a/large").write_bytes(os.urandom(9 * MIB))
    (root / "a/alone").write_bytes(b"one name")
    for name in ("small", "empty", "large"):
        for place in ("a/also ", "a/deep/", "z/", ""):
            os.link(root / "a" / name, root / f"{place}{name}")
        (root / f"{name}.link").symlink_to(f"a/{name}")
    os.utime(root / "z", ns=(1, 1_000_000_000_000_000_001))
    return root


def names_of(root: Path) -> set[frozenset[str]]:
    """The groups of names that belong to one file each."""
    found: dict[int, set[str]] = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found.setdefault(path.stat().st_ino, set()).add(str(path.relative_to(root)))
    return {frozenset(names) for names in found.values()}


# ---- hard links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--durability", "file"], ["-j", "4", "--durability", "none"]])
def test_files_with_several_names_arrive_as_that_and_once(url: Url, way: Way, options: list[str]) -> None:
    linked_tree(way.source)
    summary = good("transfer", "--json", *options, *way.words(url)).summary
    assert inventory(way.target) == inventory(way.source)
    assert names_of(way.target) == names_of(way.source)
    assert summary["bytes_sent"] == 5000 + 9 * MIB + 8
    assert (summary["files"], summary["failed"]) == (16, 0)
    again = good("transfer", "--json", *options, *way.words(url)).summary
    assert (again["files"], again["bytes_sent"]) == (0, 0)
    assert names_of(way.target) == names_of(way.source)


def test_equal_files_that_were_apart_are_joined(url: Url, way: Way) -> None:
    linked_tree(way.source)
    good("transfer", *way.words(url))
    for name in ("a/deep/small", "z/large"):
        content = (way.target / name).read_bytes()
        facts = (way.target / name).stat()
        (way.target / name).unlink()
        (way.target / name).write_bytes(content)
        (way.target / name).chmod(facts.st_mode & 0o777)
        os.utime(way.target / name, ns=(1, facts.st_mtime_ns))
    outcome = good("transfer", "--json", *way.words(url))
    assert outcome.summary["bytes_sent"] == 0
    assert {event["path"] for event in outcome.events if event["event"] == "file_linked"} == {"a/deep/small", "z/large"}
    assert names_of(way.target) == names_of(way.source)
    assert inventory(way.target)["z/large"] == inventory(way.source)["z/large"]


def test_nothing_is_written_through_a_link_at_the_destination(url: Url, way: Way) -> None:
    linked_tree(way.source)
    good("transfer", *way.words(url))
    kept = way.target.parent / "kept"
    os.link(way.target / "a/small", kept)
    before = kept.read_bytes()
    (way.source / "a/small").write_bytes(b"edited in place")
    good("transfer", *way.words(url))
    assert kept.read_bytes() == before
    assert inventory(way.target) == inventory(way.source)
    assert names_of(way.target) == names_of(way.source)


def test_a_dry_run_says_what_would_be_linked(url: Url, way: Way) -> None:
    linked_tree(way.source)
    dry = good("transfer", "-n", "--json", *way.words(url))
    would = [event["path"] for event in dry.events if event.get("action") == "make hard link"]
    assert len(would) == 12
    assert dry.summary["files"] == 16
    assert not way.target.exists()


def test_links_go_into_the_manifest(url: Url, way: Way, there: Path) -> None:
    linked_tree(way.source)
    manifest = there / "m"
    good("transfer", "--manifest", manifest, *way.words(url))
    assert good("verify", "--manifest", manifest, way.target).status == 0
    (way.target / "z/small").unlink()
    assert run("verify", "--manifest", manifest, way.target).status


def test_links_are_made_after_the_connection_was_lost(relay: Relay, way: Way) -> None:
    linked_tree(way.source)
    client = start_until(
        relay, "up" if way.up else "down", 4 * MIB, "transfer", "--json", *way.words(Url(relay.address))
    )
    relay.leave_behind()
    relay.cut(0)
    outcome = finish(client)
    assert outcome.status == 0, outcome.err
    assert inventory(way.target) == inventory(way.source)
    assert names_of(way.target) == names_of(way.source)
    assert (outcome.summary["files"], outcome.summary["failed"]) == (16, 0)


# ---- times and permissions ------------------------------------------------------------------------------------------


def odd_tree(root: Path) -> Path:
    """Files, a large one too, directories and a symbolic link with times and permissions of their own."""
    (root / "d").mkdir(parents=True)
    for name, size, mode in (("small", 10, 0o640), ("large", 5 * MIB, 0o604), ("d/open", 3, 0o777)):
        (root / name).write_bytes(os.urandom(size))
        (root / name).chmod(mode)
        os.utime(root / name, ns=(1, 10**18 + 1))
    (root / "symlink").symlink_to("small")
    os.utime(root / "symlink", ns=(1, 10**18 + 2), follow_symlinks=False)
    (root / "d").chmod(0o711)
    os.utime(root / "d", ns=(1, 10**18 + 3))
    os.utime(root, ns=(1, 10**18 + 4))
    return root


EVERY = ("small", "large", "d/open", "symlink", "d", "")


@pytest.mark.parametrize("lanes", ["1", "4"])
def test_without_times_they_are_those_of_writing_and_it_is_compared_again(url: Url, way: Way, lanes: str) -> None:
    odd_tree(way.source)
    for again in (False, True):  # then small files are found equal, and all chunks of the large one
        summary = good("transfer", "--json", "--no-times", "-j", lanes, *way.words(url)).summary
        assert (summary["files"], summary["bytes_sent"] == 0, summary["failed"]) == (1 if again else 3, again, 0)
        for name in EVERY:
            assert (way.target / name).lstat().st_mtime > 1.2e9, name
        for name in ("small", "large", "d/open", "d"):
            assert (way.target / name).stat().st_mode == (way.source / name).stat().st_mode
            if name != "d":
                assert (way.target / name).read_bytes() == (way.source / name).read_bytes()
    good("transfer", *way.words(url))
    assert inventory(way.target) == inventory(way.source)


@pytest.mark.parametrize("lanes", ["1", "4"])
def test_without_permissions_new_files_get_the_usual_ones_and_others_keep_theirs(
    url: Url, way: Way, lanes: str
) -> None:
    odd_tree(way.source)
    (way.target.parent / "usual").write_bytes(b"")
    (way.target.parent / "usual d").mkdir()
    usual, usual_directory = ((way.target.parent / name).stat().st_mode & 0o777 for name in ("usual", "usual d"))
    words = ("transfer", "--json", "--no-perms", "-j", lanes, *way.words(url))
    good(*words)
    for name in ("small", "large", "d/open"):
        assert (way.target / name).stat().st_mode & 0o777 == usual
    assert (way.target / "d").stat().st_mode & 0o777 == usual_directory
    for name in EVERY:
        assert (way.target / name).lstat().st_mtime_ns == (way.source / name).lstat().st_mtime_ns, name
    again = good(*words).summary
    assert (again["files"], again["bytes_sent"]) == (0, 0)
    for name in ("small", "large"):
        (way.target / name).chmod(0o600)
        (way.source / name).write_bytes(b"changed" * (1 if name == "small" else MIB))
    (way.target / "d").chmod(0o700)
    assert good(*words).summary["files"] == 2
    for name in ("small", "large"):
        assert (way.target / name).stat().st_mode & 0o777 == 0o600
        assert (way.target / name).read_bytes() == (way.source / name).read_bytes()
    assert (way.target / "d").stat().st_mode & 0o777 == 0o700


def test_single_files_without_times_and_permissions(url: Url, way: Way) -> None:
    odd_tree(way.source)
    way.target.mkdir()
    (way.target / "small").write_bytes(b"before")
    (way.target / "small").chmod(0o600)
    names = ("small", "large", "symlink")
    source, target = (way.source, url("tree")) if way.up else (url("tree"), way.target)
    good("transfer", "--no-times", "--no-perms", *(f"{source}/{name}" for name in names), target)
    for name in names:
        assert (way.target / name).lstat().st_mtime > 1.2e9, name
    assert (way.target / "small").stat().st_mode & 0o777 == 0o600
    assert (way.target / "large").stat().st_mode & 0o777 != 0o604
    assert (way.target / "large").read_bytes() == (way.source / "large").read_bytes()


def test_a_manifest_needs_times(url: Url, way: Way, there: Path) -> None:
    odd_tree(way.source)
    outcome = run("transfer", "--no-times", "--manifest", there / "m", *way.words(url))
    assert outcome.status == 2
    assert "--no-times" in outcome.sentence


# ---- names ----------------------------------------------------------------------------------------------------------


def named_tree(root: bytes, size: int) -> None:
    """Every byte that a name may hold, in the names of files, directories and links, and in what links say."""
    os.makedirs(root)
    every = [bytes([number]) for number in range(1, 256) if number != ord("/")]
    odd = [b"-n", b"--", b"a:b", b"host:path", b" ", b"\n", b"\xff" * 255, b"~", b"*", b"..."]
    for name in {b"x" + byte + b"y" for byte in every} | {byte for byte in every if byte != b"."} | set(odd):
        directory = root + b"/" + name
        os.mkdir(directory)
        with open(directory + b"/" + name, "wb") as file:
            file.write(name * 2)
        os.symlink(name + b"/" + name, directory + b"/-> " + name[:200])
    for byte in (b"\n", b"\xff", b" ", b"-", b":", b"\\", b"\x1b"):
        with open(root + b"/large" + byte, "wb") as file:
            file.write(os.urandom(size))


def test_every_byte_that_a_name_may_hold_goes_both_ways(url: Url, way: Way) -> None:
    named_tree(os.fsencode(way.source), 300_000)
    good("transfer", "-j", "2", *way.words(url))
    assert inventory(way.target) == inventory(way.source)
    again = good("transfer", "--json", *way.words(url)).summary
    assert again["bytes_sent"] == 0


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", b"-n", b"a:b", b" ", b"%41", b"\x1b[31m"])
def test_single_files_of_every_name_go_both_ways(url: Url, way: Way, name: bytes) -> None:
    os.makedirs(os.fsencode(way.source))
    with open(os.fsencode(way.source) + b"/" + name, "wb") as file:
        file.write(os.urandom(300_000))
    os.symlink(b"to " + name, os.fsencode(way.source) + b"/link " + name)
    way.target.mkdir()
    for one in (name, b"link " + name):
        quoted = "".join(f"%{byte:02X}" for byte in one)
        here = os.fsdecode(one)
        if way.up:
            good("transfer", f"{way.source}/{here}", url("tree/"))
        else:
            good("transfer", url(f"tree/{quoted}"), f"{way.target}/")
    assert inventory(way.target) == inventory(way.source)


# ---- owners ---------------------------------------------------------------------------------------------------------

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def owners(root: Path) -> dict[str, tuple[int, int]]:
    found = {str(path.relative_to(root)): path.lstat() for path in (root, *root.rglob("*"))}
    return {name: (facts.st_uid, facts.st_gid) for name, facts in found.items()}


@root_only
@pytest.mark.parametrize("lanes", ["1", "4"])
def test_owners_are_kept_when_asked_for(url: Url, way: Way, lanes: str) -> None:
    odd_tree(way.source)
    os.link(way.source / "small", way.source / "d/linked")
    os.utime(way.source / "d", ns=(1, 5))
    for number, name in enumerate(EVERY):
        os.chown(way.source / name, 2**31 + number, 1000 + number, follow_symlinks=False)
    words = ("transfer", "--json", "-j", lanes, *way.words(url))
    good(*words)
    assert set(owners(way.target).values()) == {(os.geteuid(), os.getegid())}
    summary = good(*words, "--owner").summary  # what is there gets its owners, and nothing is sent for it
    assert summary["bytes_sent"] == 0
    assert owners(way.target) == owners(way.source)
    assert inventory(way.target) == inventory(way.source)
    assert good(*words, "--owner").summary["files"] == 0
    shutil.rmtree(way.target)
    good(*words, "--owner")
    assert owners(way.target) == owners(way.source)
    assert inventory(way.target) == inventory(way.source)


@root_only
def test_owners_of_single_files_are_kept(url: Url, way: Way) -> None:
    odd_tree(way.source)
    way.target.mkdir()
    source, target = (way.source, url("tree")) if way.up else (url("tree"), way.target)
    for name in ("small", "large", "symlink"):
        os.chown(way.source / name, 12, 34, follow_symlinks=False)
        good("transfer", "--owner", f"{source}/{name}", target)
        assert owners(way.target)[name] == (12, 34)
        os.chown(way.target / name, 5, 6, follow_symlinks=False)
        good("transfer", "--owner", f"{source}/{name}", target)
        assert owners(way.target)[name] == (12, 34)
        assert (way.target / name).lstat().st_mtime_ns == (way.source / name).lstat().st_mtime_ns


@root_only
def test_bits_above_the_permissions_are_never_kept(url: Url, way: Way) -> None:
    odd_tree(way.source)
    for name in ("small", "large"):
        (way.source / name).chmod(0o6755)
    (way.source / "d").chmod(0o3777)
    good("transfer", "--owner", *way.words(url))
    for name, mode in (("small", 0o755), ("large", 0o755), ("d", 0o777)):
        assert stat.S_IMODE((way.target / name).stat().st_mode) == mode


@pytest.mark.parametrize("inside", ["", "to"])
def test_a_destination_in_which_no_name_changes_keeps_its_time(
    url: Url, served: Path, there: Path, way: Way, inside: str
) -> None:
    """What goes into it goes deeper; what is unfinished meanwhile lives at the top."""
    source, target = (there, served / inside) if way.up else (served, there / inside)
    for place in (source / "s", target / "s"):
        place.mkdir(parents=True)
    for name, size in (("small", 100), ("large", 5 * MIB)):
        (source / "s" / name).write_bytes(os.urandom(size))
    os.utime(target, ns=(1, 1_000_000_007))
    good("transfer", *((source / "s", url(inside)) if way.up else (url("s"), target)))
    wait_until_tidy(served)
    assert visible(target / "s") == {"small", "large"}
    # A server gives the time back right behind the removal, and no client waits for either.
    wait_until(lambda: target.stat().st_mtime_ns == 1_000_000_007, told=lambda: target.stat())


def test_the_time_of_a_link_is_set_where_it_stands(url: Url, way: Way) -> None:
    way.source.mkdir()
    (way.source / "link").symlink_to("x")
    os.utime(way.source / "link", ns=(1, 1_000_000_007), follow_symlinks=False)
    good("transfer", *way.words(url))
    os.utime(way.source / "link", ns=(1, 2_000_000_009), follow_symlinks=False)
    dry = good("transfer", "-n", *way.words(url))
    assert "link" in dry.out
    good("transfer", *way.words(url))
    assert inventory(way.target) == inventory(way.source)
    again = good("transfer", "--json", *way.words(url))
    assert [event["event"] for event in again.events if event.get("path") == "link"] == ["file_skipped"]
