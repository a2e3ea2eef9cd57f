"""``fsmux transfer``."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from fsmux.cli.options import chunk_size, filter_rules, find_token, parsed, typed
from fsmux.cli.render import Reporter, choose_painter
from fsmux.cli.run import execute, load_trio
from fsmux.cli.tally import exit_code
from fsmux.cli.wording import shell_line
from fsmux.errors import ExitCode, UsageError
from fsmux.plan.filters import Filters
from fsmux.records import Durability, Kept, Namespaces, printable
from fsmux.units import parse_rate
from fsmux.urls import Stdio, parse

if TYPE_CHECKING:
    import typer

    from fsmux.events import ManifestWritten
    from fsmux.job import Job
    from fsmux.moving.ledger import Ledger
    from fsmux.plan.selection import Selection


NOT_FOR_STDIO: Final = (
    "checksum", "update", "exclude", "include", "files_from", "from0", "no_times", "no_perms", "owner", "xattrs",
)  # fmt: skip
"""Options, by their Python names, that say what is moved of a tree, or what is kept beside bytes."""


class TransferOptions(Struct, frozen=True):
    """What was typed, in the order of the command's options."""

    paths: tuple[str, ...]
    dry_run: bool
    verbosity: int
    json: bool
    progress: str
    checksum: bool
    update: bool
    delete: bool
    exclude: tuple[str, ...]
    include: tuple[str, ...]
    files_from: str | None
    from0: bool
    connections: int
    streams: int
    chunk_size: str
    bwlimit: str | None
    resume: bool
    retries: int | None
    timeout: float | None
    durability: str
    verify: str
    times: bool
    perms: bool
    owner: bool
    xattrs: bool
    manifest: str | None
    repair: bool
    token_file: str | None


def run(ctx: typer.Context, options: TransferOptions) -> int:
    if options.repair:
        from fsmux.cli import repair

        return repair.run(ctx, options)
    return move(ctx, options, make_job(ctx, options))


def move(ctx: typer.Context, options: TransferOptions, job: Job) -> int:
    """Do the job, and show it."""
    now = time.monotonic()
    painter = choose_painter(
        options.progress, sys.stderr, now,
        quiet=options.verbosity < 0, json=options.json, dry_run=options.dry_run,
        dumb=os.environ.get("TERM", "dumb") == "dumb",
    )  # fmt: skip
    piped = isinstance(job.destination, Stdio)
    reporter = Reporter(
        painter, sys.stderr if piped else sys.stdout, time.monotonic,
        verbosity=options.verbosity, json=options.json, dry_run=options.dry_run,
    )  # fmt: skip

    async def main() -> int:
        from fsmux.job import run as run_job

        ledger, done = job.options.manifest, False
        try:
            summary = await run_job(job, reporter)
            done = True
        finally:
            if options.manifest and ledger is not None and not options.dry_run and (done or ledger.changed):
                reporter(_keep(options.manifest, ledger))
        if not summary.failed:  # or what had failed stands after all, thanks to a later attempt
            return ExitCode.OK
        others = summary.files + summary.skipped > 0
        return exit_code(reporter.tally.failures, others=others) or ExitCode.SOME_FAILED

    return execute(main, options.verbosity, reporter=reporter, resume=_way_back(ctx, options, job))


def _way_back(ctx: typer.Context, options: TransferOptions, job: Job) -> str:
    """How to go on after an interruption, in words that end with the command."""
    if options.dry_run or any(isinstance(place, Stdio) for place in (*job.sources, job.destination)):
        return ""
    if options.files_from == "-":  # a command without its stdin is not the same one
        return "what has arrived is kept; given the same names again, the same command goes on from there"
    token = os.environ.get("FSMUX_TOKEN", "").strip()
    given = ", with FSMUX_TOKEN set as it was" if token and token == job.token else ""
    line = shell_line(["fsmux", *ctx.find_root().obj["args"]])
    return f"what has arrived is kept, and this goes on from there{given}:\n  {line}"


def make_job(ctx: typer.Context, options: TransferOptions) -> Job:
    """The job that the options describe.  Raises :class:`UsageError` or AuthError before anything is done."""
    load_trio()
    from fsmux.job import Job, Options

    if len(options.paths) < 2:
        raise UsageError("name at least one source and a destination: fsmux transfer SRC... DST")
    if options.manifest and not options.times:
        raise UsageError("a manifest has the times of files, which --no-times does not keep; leave one of them out")
    places = tuple(map(parse, options.paths))
    if any(isinstance(place, Stdio) for place in places):
        _check_stdio(ctx, options, to_stdout=isinstance(places[-1], Stdio))
    chunks = chunk_size(options.chunk_size)
    ledger = _ledger(options.manifest, chunks) if options.manifest and not options.repair else None
    return Job(
        sources=places[:-1],
        destination=places[-1],
        token=find_token(ctx, options.token_file),
        timeout=options.timeout,
        retries=options.retries,
        options=Options(
            streams=options.streams,
            connections=options.connections,
            chunk_size=chunks,
            resume=options.resume,
            durability=Durability[options.durability.upper()],
            verify=options.verify == "disk",
            kept=Kept(
                options.times, options.perms, options.owner, Namespaces.USER if options.xattrs else Namespaces.NONE
            ),
            dry_run=options.dry_run,
            selection=_selection(options),
            checksum=options.checksum,
            update=options.update,
            delete=options.delete,
            filters=Filters(filter_rules(ctx, options.exclude, options.include)),
            bwlimit=parsed("--bwlimit", parse_rate, options.bwlimit) if options.bwlimit else None,
            manifest=ledger,
        ),
    )


def _check_stdio(ctx: typer.Context, options: TransferOptions, *, to_stdout: bool) -> None:
    if (sys.__stdout__ if to_stdout else sys.__stdin__) is None:
        raise UsageError(f"{'stdout' if to_stdout else 'stdin'} is closed, so nothing can go through -")
    if to_stdout and options.verify == "disk":
        raise UsageError("--verify disk is about a disk, and - (stdout) is none")
    if options.delete:
        raise UsageError("--delete removes what a directory of the source has not; - is none")
    if options.manifest or options.repair:
        raise UsageError(
            "what passes through - leaves nothing to keep a manifest of, or to repair: leave the option out"
        )
    for name in NOT_FOR_STDIO:
        # What is configured is a preference for other transfers, but nobody prefers names in a file.
        if typed(ctx, name) or (name == "files_from" and options.files_from):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} has no meaning for what passes through -: leave it out")


def _selection(options: TransferOptions) -> Selection | None:
    """The names in the file that was given."""
    if options.files_from is None:
        if options.from0:
            raise UsageError("--from0 says how the names of --files-from end, and there is none")
        return None
    from fsmux.plan.selection import select, split_names

    try:
        if options.files_from == "-":
            if sys.__stdin__ is None:
                raise UsageError("stdin is closed, so no names can come from it")
            data = sys.stdin.buffer.read()
        else:
            with open(options.files_from, "rb") as file:
                data = file.read()
    except OSError as error:
        raise UsageError(f"--files-from {printable(options.files_from)}: {(error.strerror or '').lower()}") from None
    return select(split_names(data, nul=options.from0))


def _ledger(path: str, chunks: int) -> Ledger:
    from fsmux.cli import manifests

    return manifests.begin(path, chunks)


def _keep(path: str, ledger: Ledger) -> ManifestWritten:
    from fsmux.cli import manifests

    return manifests.keep(path, ledger)
