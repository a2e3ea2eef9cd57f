"""``fsmux transfer --repair``: compare the destination with its manifest, then fetch what is wrong, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from fsmux.cli import verify
from fsmux.cli.run import execute
from fsmux.cli.tally import exit_code
from fsmux.cli.transfer import TransferOptions, make_job, move
from fsmux.errors import UsageError
from fsmux.moving.repair import Repairs
from fsmux.urls import Local

if TYPE_CHECKING:
    import typer

    from fsmux.checking import Check


def run(ctx: typer.Context, options: TransferOptions) -> int:
    job = make_job(ctx, options)
    if not options.manifest:
        raise UsageError("--repair needs --manifest FILE, which says what DST should be")
    if not isinstance(job.destination, Local):
        raise UsageError("--repair compares DST, so that must be on this machine; run it where DST is")
    if (
        options.dry_run
        or not options.resume
        or options.checksum
        or options.update
        or options.delete
        or options.files_from
        or job.options.filters
    ):
        raise UsageError(
            "--repair does not go with -n, --no-resume, -c, -u, --delete, --files-from, --exclude and --include; "
            "fsmux verify shows what is wrong"
        )
    found: list[Check] = []
    shown = verify.show(options.progress, options.verbosity, json=options.json)
    path, manifest = job.destination.path, options.manifest

    async def look() -> int:
        found.append(await verify.check_path(path, manifest, shown))
        return verify.verdict(found[0], shown, event="check")

    code = execute(look, options.verbosity, reporter=shown)
    if not found or not found[0].damaged:
        return code
    records = [damage.record for damage in found[0].damaged]
    wanted = replace(job.options, chunk_size=found[0].chunk_size, repair=Repairs(records))
    return move(ctx, options, replace(job, options=wanted)) or exit_code(shown.tally.failures)
