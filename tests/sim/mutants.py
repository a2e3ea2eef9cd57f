"""Which of the rules that files depend on are watched: each is broken once, and a rig has to notice.

A mutant is the package with one line of it changed: a sync, a cache drop, a check or an order of two steps taken away.
It is copied, changed and given to the rigs in a process of its own.  A mutant that survives is a rule that nothing
watches, or that does not matter.  Some are known not to matter to what is promised, only to how much is done twice, or
because another rule stands behind them (*progress*); they are tried as well, and may survive.

Run it with ``python -m tests.sim.mutants``, or with names of mutants to try only those.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 300
"""Seconds of work after which a mutant that keeps the rigs busy counts as killed: it has made something go on for ever.

Work and not time, because on a busy machine a mutant that survives takes long, too.
"""

WAIT_SECONDS: Final = 3_600.0
"""The same for one that has made something wait for ever."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one place, which must be there exactly once."""

    name: str
    path: str
    old: str
    new: str
    progress: bool = False
    """Whether only the amount of work depends on it."""


MUTANTS: Final = (
    # ---- the commit
    Mutant("no sync of the part before the rename", "files/commit.py",
           "        if sync or sink.verify:\n            sink.sync_part(whole=True)\n", ""),
    Mutant("the part is synced after its rename", "files/commit.py",
           "        if sync or sink.verify:\n            sink.sync_part(whole=True)\n        if sink.verify:\n"
           "            _prove(sink)\n        try:\n            _stand(sink, sync)\n"
           "        except FileNotFoundError:  # the empty directory has lost its place (:mod:`.whole`)\n"
           "            if not sink.place.part_name:\n                raise\n            _stand(sink, sync)\n"
           "    return sync\n\n\ndef _stand(sink: Sink, sync: bool) -> None:\n"
           "    directory = sink.root.enter(sink.parts)\n    try:\n        with directory.hold() as fd:\n"
           "            _publish(sink, fd)\n",
           "        try:\n            _stand(sink, sync)\n"
           "        except FileNotFoundError:  # the empty directory has lost its place (:mod:`.whole`)\n"
           "            if not sink.place.part_name:\n                raise\n            _stand(sink, sync)\n"
           "    return sync\n\n\ndef _stand(sink: Sink, sync: bool) -> None:\n"
           "    directory = sink.root.enter(sink.parts)\n    try:\n        with directory.hold() as fd:\n"
           "            _publish(sink, fd)\n            sink.sync_part(whole=True)\n"),
    Mutant("what is read back is not compared", "files/commit.py",
           "            if found != manifest.crc_of(index):\n", "            if False:\n"),
    Mutant("what is read back comes from the cache", "files/commit.py", "        sink.sys.drop_cache(fd)\n", ""),
    Mutant("no sync of the directory after the rename", "files/commit.py",
           "                if sync:\n                    sink.root.settle(sink.parts[:-1], fd)\n",
           "                pass\n"),
    Mutant("no sync of the final directory itself", "files/landing.py",
           "        self.sys.fsync(fd)\n        if not parent:\n", "        if not parent:\n"),
    Mutant("no sync of the directories above", "files/landing.py", "                    self.sys.fsync(upper)\n",
           "                    pass\n"),
    Mutant("directories are remembered as durable without having been synced", "files/landing.py",
           "            self._settled.pop(parts, None)\n", "            pass\n", progress=True),
    Mutant("a commit of what is not complete", "files/commit.py", "    if not sink.manifest.complete:\n",
           "    if False:\n"),
    Mutant("a poisoned part is committed", "files/commit.py", "    if sink.poisoned:\n        raise sink.lost()\n", ""),
    Mutant("a part of another size is committed", "files/commit.py",
           "        if sink.sys.fstat(fd).st_size != sink.identity.size:\n", "        if False:\n"),
    Mutant("whatever has the part's name is committed", "files/commit.py",
           "        if place.journal is not None:\n            _check_name(sink, here)\n", ""),
    Mutant("a failed sync is tried again and believed", "files/sink.py",
           "        except OSError as error:\n            self.poison()\n            raise self.lost() from error\n",
           "        except OSError:\n            pass\n"),
    Mutant("a file without durability is called durable", "files/commit.py", "    return sync\n", "    return True\n"),
    # ---- the checkpoint
    Mutant("no sync of the part before DURABLE", "files/sink.py",
           "            self.sync_part()\n            # Only now", "            # Only now"),
    Mutant("DURABLE before the sync of the part", "files/sink.py",
           "            self.sync_part()\n            # Only now: DURABLE must never be on the disk before what it"
           " speaks of.\n            journal.append(Type.DURABLE, covered, stamp)\n            journal.flush()\n",
           "            journal.append(Type.DURABLE, covered, stamp)\n            journal.flush()\n"
           "            self.sync_part()\n"),
    Mutant("DURABLE covers what was recorded meanwhile", "files/sink.py",
           "            journal.append(Type.DURABLE, covered, stamp)\n",
           "            journal.append(Type.DURABLE, journal.count, stamp)\n", progress=True),
    Mutant("no sync of the journal at a checkpoint", "files/sink.py",
           "            journal.flush()\n            journal.sync()\n", "            journal.flush()\n", progress=True),
    Mutant("the stamp is not looked at", "files/resume.py", "        trusted = trusted and stamp_of(facts) =="
           " log.stamp\n", ""),
    # ---- resuming
    Mutant("no sync of the part when resuming", "files/resume.py",
           "        trusted = _sync_part(sys, fd, state, journal, journal_name)\n", "        trusted = True\n"),
    Mutant("no cache drop when resuming", "files/resume.py", "        sys.drop_cache(fd)\n", ""),
    Mutant("the cache is dropped before the sync", "files/resume.py",
           "        trusted = _sync_part(sys, fd, state, journal, journal_name)\n        sys.drop_cache(fd)\n",
           "        sys.drop_cache(fd)\n        trusted = _sync_part(sys, fd, state, journal, journal_name)\n"),
    Mutant("trust after a failed sync when resuming", "files/resume.py",
           "        revoke(state, journal, journal_name)\n        return False\n", "        return True\n",
           progress=True),
    Mutant("nothing is revoked after a failed sync when resuming", "files/resume.py",
           "        revoke(state, journal, journal_name)\n        return False\n", "        return False\n",
           progress=True),
    Mutant("what was received is believed without reading", "files/resume.py",
           "            if trusted and log.is_durable(index):\n", "            if True:\n"),
    Mutant("what was durable is read again", "files/resume.py",
           "            if trusted and log.is_durable(index):\n", "            if False:\n", progress=True),
    Mutant("a part with another inode is taken for ours", "files/resume.py",
           "        and (facts.st_dev, facts.st_ino) == (header.device, header.inode)\n", "", progress=True),
    Mutant("a part with a second name is written to", "files/resume.py", "        and facts.st_nlink == 1\n", ""),
    Mutant("a journal of another version is believed", "files/resume.py",
           "    same = (log.header.identity, log.header.chunk_size) == (manifest.identity, manifest.map.chunk_size)\n",
           "    same = log.header.chunk_size == manifest.map.chunk_size\n"),
    Mutant("the tail of a torn journal stays", "files/journal.py",
           "            self._sys.ftruncate(fd, log.end)\n", "            pass\n", progress=True),
    Mutant("the check of a record is not looked at", "files/journal.py",
           "        if check != _CHECK.unpack_from(view, log.end + _BODY.size)[0] or number != log.count:\n",
           "        if number != log.count:\n"),
    Mutant("the checks of records are not chained", "files/journal.py",
           "        check = xxh3_64_intdigest(body, log.chain)\n        if check != _CHECK.unpack_from(view, log.end +"
           " _BODY.size)[0] or number != log.count:\n            break\n",
           "        check = _CHECK.unpack_from(view, log.end + _BODY.size)[0]\n        if number != log.count:\n"
           "            break\n"),
    Mutant("a chunk that was found wrong is not taken back", "files/resume.py",
           "                journal.append(Type.INVALID, index)\n", "                pass\n", progress=True),
    # ---- beginning anew
    Mutant("an old journal is not emptied before its part is replaced", "files/resume.py",
           "    journal.reset()\n    state.unlink(part_name)\n", "    state.unlink(part_name)\n",
           progress=True),
    Mutant("the emptied journal is not synced", "files/journal.py",
           "                    self._sys.ftruncate(fd, 0)\n                    self._sys.fdatasync(fd)\n",
           "                    self._sys.ftruncate(fd, 0)\n", progress=True),
    Mutant("a journal goes on speaking of the old version", "files/resume.py", "    place.journal.reset()\n", ""),
    Mutant("no lock", "files/lock.py", "                    sys.lock(fd)\n",
           "                    pass\n"),
    Mutant("whoever locked a name that is gone goes on", "files/lock.py",
           "                if _leads_to(sys, state, name, fd):\n                    return lease, made\n",
           "                return lease, made\n", progress=True),
    Mutant("the journal is removed before its part", "files/sink.py",
           "for name in (place.part_name, place.journal_name):", "for name in (place.journal_name, place.part_name):",
           progress=True),
    # ---- writing
    Mutant("a held chunk is written over", "files/sink.py", "                if self.manifest.holds(index):\n",
           "                if False:\n", progress=True),
    Mutant("a short write is taken for a whole one", "files/ranges.py", "        if written == total:\n",
           "        if written:\n"),
    Mutant("a short read is taken for a whole one", "files/ranges.py",
           "        done += count\n    return done\n", "        done += count\n        break\n    return done\n",
           progress=True),
    Mutant("a range that was copied is not compared", "files/basis.py", "            if digest != known[0]:\n",
           "            if False:\n", progress=True),
    # ---- packs
    Mutant("packs are renamed without having been synced", "files/unpacking.py",
           "        bad = self._sync()\n", "        bad: dict[StateDir | int, FsmuxError] = {}\n"),
    Mutant("packs are synced only after their renames", "files/unpacking.py",
           "        bad = self._sync()\n        self._have_appear(stages, bad)\n        for one in staged:\n",
           "        bad: dict[StateDir | int, FsmuxError] = {}\n"
           "        self._have_appear(stages, bad)\n        for one in staged:\n"
           "            bad = self._sync() if one is staged[-1] else bad\n"),
    Mutant("packs are not synced again after their renames", "files/unpacking.py",
           "        unsafe = self._sync()\n", "        unsafe: dict[StateDir | int, FsmuxError] = {}\n"),
    Mutant("finishing the top takes the second sync away", "files/holding.py",
           "            self._left[state] = fd\n", "            self._sys.close(fd)\n"),
    Mutant("a failed sync of packs is not minded", "files/holding.py",
           "                errors[state] = from_os_error(error, \"writing to the disk\")\n",
           "                from_os_error(error, \"writing to the disk\")\n"),
    Mutant("a failed sync after the renames of packs is not minded", "files/unpacking.py",
           "            if one.state is not None and one.state in unsafe:\n", "            if False:\n"),
    Mutant("packs are synced by a descriptor that hears too late", "files/holding.py",
           "                self._sys.syncfs(fd)\n",
           "                late = self._sys.openat(fd, b\".\", OPEN_DIRECTORY)\n                try:\n"
           "                    self._sys.syncfs(late)\n                finally:\n"
           "                    self._sys.close(late)\n"),
    Mutant("a sync ahead of the commit hears of failed writes in its place", "files/holding.py",
           "                own = self._sys.openat(fd, b\".\", OPEN_DIRECTORY)\n",
           "                own = self._sys.dup(fd)\n"),
    Mutant("syncfs is believed on a kernel that keeps errors to itself", "files/holding.py",
           "    return found is not None and (int(found[1]), int(found[2])) >= _TELLS\n",
           "    return found is not None\n"),
    Mutant("no sync of each file of a pack", "files/entries.py",
           "                sys.fsync(fd)\n", "                pass\n"),
    Mutant("no sync of the directories of a pack", "files/standing.py",
           "            self._root.settle(terms.base + group.directory, directory)\n        return left\n",
           "            pass\n        return left\n"),
    Mutant("no sync for the sake of directories that packs make", "files/unpacking.py",
           "            self._holding.hold(state)\n            self._made.append((state, made))\n",
           "            pass\n"),
    Mutant("no sync of what directories are made in", "files/unpacking.py",
           "        elif self._terms.settles:\n            self._root.settle(parent, directory)\n", ""),
    Mutant("no sync of the directory of a hard link", "files/standing.py",
           "            if terms.settles:\n                self._root.settle(parent, directory)\n\n", "\n"),
    Mutant("a failed sync after hard links and removals is not minded", "files/unpacking.py",
           "            elif unsafe and one.state is None:\n", "            elif False:\n"),
    Mutant("what is only removed or adjusted is not synced with the rest", "files/holding.py",
           "            self._left[device] = self._sys.dup(directory)\n", "            pass\n"),
    Mutant("what is set of one name is not synced", "files/root.py",
           "                if durability is not Durability.NONE:\n                    self.sys.fsync(fd)\n", ""),
    Mutant("a link that is made by itself is not synced", "files/root.py",
           "                            if durability is not Durability.NONE:\n"
           "                                self.settle(parts[:-1], there)\n", ""),
    Mutant("what is adjusted is not synced by itself", "files/standing.py",
           "        if terms.settles:\n            sys.fsync(fd)\n", ""),
    Mutant("what is linked alone is not synced", "files/sharing.py",
           "            if self._sync:\n                _sync(sys, here, temporary)\n", ""),
    Mutant("what is linked with others is not synced", "files/unpacking.py",
           "        self._standing.hold_linked(staged)\n", ""),
    Mutant("no sync of the directory of what is removed", "files/standing.py",
           "            if terms.settles:\n                self._sys.fsync(directory)\n", ""),
    Mutant("names are removed before what comes with them stands", "files/unpacking.py",
           "Act.REMOVE: 2,", "Act.REMOVE: -1,", progress=True),  # they never come with anything else
    Mutant("names are removed though something failed", "moving/removing.py",
           "        if report.failed:\n", "        if False:\n"),
    Mutant("what a filter protects is removed", "moving/extras.py",
           "            if name in alone and self._keeps((*group.directory, name), is_directory):\n",
           "            if name in alone:\n"),
    Mutant("files of the same size have the same bytes", "moving/comparing.py",
           "here is not None and here == there for", "here is not None for"),
    Mutant("a hole leaves what was there", "files/holes.py", "        sys.punch(fd, *extent)\n", "        pass\n"),
    Mutant("a hole at the end is no part of the file", "files/holes.py",
           "        sys.ftruncate(fd, size)\n    try:\n", "        pass\n    try:\n"),
    Mutant("data is a hole if nobody knows where it ends", "files/holes.py",
           "                return start, end  # there is data", "                return end, end  # there is data"),
    Mutant("a file of a pack is right whatever its checksum", "files/entries.py",
           "                    if crc32(data) != crc:\n", "                    if False:\n"),
    Mutant("a short write is taken for a whole one in packs", "files/entries.py",
           "            elif data and sys.pwrite(fd, data, 0) != len(data):\n",
           "            elif data and not sys.pwrite(fd, data, 0):\n"),
    Mutant("a hole at the end is no part of a file of a pack", "files/ranges.py",
           "    sys.ftruncate(fd, len(data))\n", "    pass\n"),
    Mutant("a block that begins with a zero is a hole", "files/ranges.py",
           "bytes(block) == bytes(len(block))", "not block[0]"),
    Mutant("a short read is taken for a whole one in packs", "files/packing.py",
           "                    count != size\n", "                    False\n"),
    Mutant("a file that changed while it was packed travels as it was listed", "files/packing.py",
           "                    or facts.st_mtime_ns != mtime\n", ""),
    Mutant("what was not committed of packs is left", "files/unpacking.py",
           "        for one in staged:\n            self._standing.discard(one)\n        self._holding.let_go()\n",
           "        self._holding.let_go()\n"),
    Mutant("what is in a directory that cannot appear whole is lost", "files/standing.py",
           "            self._stand(one, within, None)\n", "            pass\n"),
    Mutant("what is below a directory that cannot appear whole is lost", "files/standing.py",
           "                    self._root.make_directory(directory, made.parts, made.mode)\n",
           "                    pass\n"),
    Mutant("a failed sync of what appears whole is not minded", "files/unpacking.py",
           "            if (lost := unsafe.get(stage.state)) is not None:\n", "            if False:\n"),
    Mutant("what could not be synced appears whole", "files/unpacking.py",
           "if (lost := bad.get(stage.state)) is not None:\n", "if (lost := None) is not None:\n"),
    Mutant("what was not to appear yet is left", "files/unpacking.py",
           "        for stage in stages:\n            stage.discard()\n",
           "        for stage in stages:\n            pass\n"),
    Mutant("what lost its directory while it was renamed is lost", "files/standing.py",
           "        for last in (False, True):\n            if left:\n",
           "        for last in (True,):\n            if left:\n"),
    Mutant("what lost its directory while it was committed is lost", "files/commit.py",
           "            if not sink.place.part_name:\n", "            if True:\n"),
    # ---- descriptors and leftovers
    Mutant("a descriptor is closed under its users", "files/lease.py", "            last = not self._users\n",
           "            last = True\n"),
    Mutant("the reserved directory is never removed", "files/state.py",
           "            self._change(home, self._sys.rmdir, home, RESERVED)  # refuses while anything is in it\n",
           "            pass\n"),
    Mutant("what failed is left", "files/sink.py", "                    with suppress(OSError):\n"
           "                        self.pin.state.unlink(name)\n", "                    pass\n"),
    Mutant("nothing is swept", "files/landing.py", "            leftovers.sweep(self, pin.state)\n",
           "            pass\n"),
    Mutant("what is in use is swept", "files/leftovers.py",
           "            sys.lock(fd)\n", "            pass\n"),
    Mutant("temporary files outlive their guard", "files/state.py",
           "            if self._pins:\n                return\n            self._let_go()\n",
           "            self._let_go()\n            if self._pins:\n                return\n"),
    Mutant("a guard is there and is not locked", "files/lock.py",
           "                try:\n                    sys.lock(fd)\n",
           "                try:\n                    None if if_possible else sys.lock(fd)\n"),
    Mutant("temporary files that nobody guards are kept", "files/leftovers.py",
           "useless = leftover.loose or leftover.names", "useless = leftover.names"),
    # ---- the conversation
    Mutant("a chunk is right whatever its checksum", "transfer/assembly.py",
           "        return self.found == self.expected\n", "        return True\n"),
    Mutant("a header is right whatever its checksum", "wire/frames.py",
           "    if cmd == _DATA and fold(header_crc(head)) != checksum:\n",
           "    if False:\n"),
    Mutant("a message is right whatever its checksum", "wire/frames.py",
           " if fold(crc) == checksum else None\n", "\n"),
    Mutant("a sealed message is right whatever its seal", "wire/frames.py",
           "        if whole[-SEAL_SIZE:] != _SEAL.pack(crc):\n", "        if False:\n"),
    Mutant("a connection that fell silent is kept", "mux/connection.py",
           "            if silent >= self._patience:\n", "            if False:\n"),
    Mutant("a damaged chunk is not asked for again", "transfer/intake.py",
           "        self.stream.send_nowait(Again(index, found))\n", ""),
    Mutant("bytes that were taken are no credit again", "transfer/intake.py",
           "            for data in batch:\n                self.stream.consumed(data)\n", "            pass\n"),
)  # fmt: skip


def rigs() -> None:
    """What a mutant has to get past; raises what it did not."""
    from tests.sim.flips import BLIND, Recording, long_message, record
    from tests.sim.guards import GUARDS
    from tests.sim.stories import explore
    from tests.sim.sweep import FAULTS, OPERATIONS, sweep
    from tests.sim.world import episode

    for guard in GUARDS:
        guard()
    for _ in explore(12_000, seed=1, samples=7):
        pass
    for operation in OPERATIONS:
        for fault in FAULTS.values():
            for _ in sweep(operation, fault):
                pass
    said = record()
    for recording in map(Recording, said):
        for number in range(0, recording.bits, 997):
            recording.flip(number)
        for start, end in recording.small_frames():
            for number in range(8 * start, 8 * end):
                recording.flip(number)
    long = Recording(long_message())
    for distance in BLIND:
        for bit in range(8):
            long.flip(8 * (len(long.said) - distance) + bit)
    for seed in range(300):
        episode(seed)


def killed(mutant: Mutant) -> str:
    """What noticed the mutant; empty if nothing did."""
    with tempfile.TemporaryDirectory() as place:
        for name in ("fsmux", "tests"):
            shutil.copytree(ROOT / name, Path(place, name), ignore=shutil.ignore_patterns("__pycache__"))
        path = Path(place, "fsmux", mutant.path)
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: {mutant.path} has {text.count(mutant.old)} places like that")
        path.write_text(text.replace(mutant.old, mutant.new))
        environment = {**os.environ, "PYTHONPATH": place, "PYTHONDONTWRITEBYTECODE": "1"}
        limit = f"resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))"
        code = f"import resource; {limit}; from tests.sim.mutants import rigs; rigs()"
        try:
            ended = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code], cwd=place, env=environment, capture_output=True,
                text=True, timeout=WAIT_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"nothing ended within {WAIT_SECONDS:.0f} s"
    if not ended.returncode:
        return ""
    if ended.returncode < 0:
        return f"ended by {signal.Signals(-ended.returncode).name}"
    lines = [line.strip(" |+-") for line in ended.stderr.splitlines()]
    return next((line for line in reversed(lines) if ": " in line), "it died")


def main(names: list[str]) -> int:
    """Try all of them, or those that are named; how many survived that must not."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    survivors = 0
    for mutant in chosen:
        started = time.monotonic()
        by = killed(mutant)
        seconds = time.monotonic() - started
        verdict = "killed" if by else "survived, progress only" if mutant.progress else "SURVIVED"
        survivors += not by and not mutant.progress
        print(f"  {verdict:24} {mutant.name}  [{seconds:.0f} s] {by[:100]}", flush=True)
    counted = sum(not mutant.progress for mutant in chosen)
    print(f"mutants: {counted - survivors} of {counted} killed, {len(chosen) - counted} more are progress only")
    return survivors


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
