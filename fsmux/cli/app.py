"""The commands and their options.  Bodies live in modules of their own, imported when they are called.

Exit codes: 0 all done · 1 unexpected · 2 usage · 3 some files failed · 4 source missing or changed · 5 network ·
6 authentication or permission · 7 integrity · 8 no space · 9 refused by the peer · 130 SIGINT · 143 SIGTERM.
"""

# No "from __future__ import annotations" here: Typer would compile and evaluate the text of each annotation four times.

import os
import sys
from copy import copy
from typing import Annotated, Any

import typer

from fsmux.cli.config import Config, Kind, config_path, kind_of, load_config
from fsmux.cli.options import (
    Connections,
    DurabilityName,
    Json,
    LogFormat,
    OrderedFilters,
    Progress,
    ProgressName,
    Quiet,
    Retries,
    Seconds,
    Streams,
    Timeout,
    TokenFile,
    Verbose,
    VerifyName,
    option,
    verbosity,
)
from fsmux.cli.run import guard, report
from fsmux.errors import FsmuxError

app = typer.Typer(
    name="fsmux", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
token_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Tokens, which prove who may connect.")
app.add_typer(token_app, name="token")

Url = Annotated[
    str, typer.Argument(metavar="URL", show_default=False, help="fsmux://[USER@]HOST[:PORT]/PATH or HOST:PATH.")
]


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Fast, resumable, verified file transfer: many file sessions over one connection."""
    if version:  # only reached together with other options: see fsmux.__main__
        from fsmux._version import __version__

        typer.echo(f"fsmux {__version__}")
        raise typer.Exit


@app.command("serve")
def serve(
    ctx: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="ROOT", help="The directory to serve.")],
    listen: Annotated[
        str, option("--listen", metavar="ADDRESS", help="HOST:PORT (port 0 picks one) or unix:PATH.")
    ] = "127.0.0.1:9000",
    port_file: Annotated[
        str | None, option("--port-file", metavar="FILE", help="Write HOST:PORT here once connections are accepted.")
    ] = None,
    write: Annotated[bool, option("--write", help="Let clients write. The default is read-only.")] = False,
    token_file: TokenFile = None,
    users: Annotated[str | None, option("--users", metavar="FILE", help="A TOML file of users and their keys.")] = None,
    no_auth: Annotated[bool, option("--no-auth", help="Let everybody in who can connect.")] = False,
    plaintext: Annotated[
        bool, option("--plaintext", help="Listen beyond this machine although nothing is encrypted.")
    ] = False,
    durability: Annotated[
        DurabilityName, option("--durability", help="What uploads wait for at least; a client may ask for more.")
    ] = DurabilityName.BATCH,
    log_format: Annotated[LogFormat, option("--log-format", help="How the log on stderr is written.")] = LogFormat.TEXT,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Serve a directory. Without a token a new one is made, and the client's command is printed."""
    from fsmux.cli import serve as command

    level = verbosity(verbose, quiet)
    options = command.ServeOptions(
        directory, listen, port_file, write, token_file, users, no_auth, plaintext, durability.value, log_format.value,
        level,
    )  # fmt: skip
    raise typer.Exit(guard(lambda: command.run(ctx, options), level))


@app.command("transfer", cls=OrderedFilters)
def transfer(
    ctx: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="SRC... DST", show_default=False, help="Files, directories, remotes, -.")
    ],
    dry_run: Annotated[bool, option("--dry-run", "-n", help="Show what would be done, and do nothing.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    json: Json = False,
    progress: Progress = ProgressName.AUTO,
    checksum: Annotated[
        bool, option("--checksum", "-c", help="Compare the bytes of files of the same size, not their times.")
    ] = False,
    update: Annotated[bool, option("--update", "-u", help="Leave alone what is newer at the destination.")] = False,
    delete: Annotated[
        bool,
        option(
            "--delete", help="When all else has succeeded, remove what stands in directories at DST and not in SRC."
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        option("--exclude", metavar="GLOB", help="Leave out what matches; the first matching rule decides."),
    ] = None,
    include: Annotated[
        list[str] | None, option("--include", metavar="GLOB", help="Let in what matches, before a later --exclude.")
    ] = None,
    files_from: Annotated[
        str | None,
        option(
            "--files-from",
            metavar="FILE",
            show_default=False,
            help="Only the names in FILE (-: stdin), one a line, relative to SRC.",
        ),
    ] = None,
    from0: Annotated[bool, option("--from0", "-0", help="The names in FILE end with zero bytes.")] = False,
    connections: Connections = 1,
    streams: Streams = 16,
    chunk_size: Annotated[
        str, option("--chunk-size", metavar="SIZE", help="Unit of checking and of resuming, a power of two.")
    ] = "4MiB",
    bwlimit: Annotated[
        str | None,
        option("--bwlimit", metavar="RATE", show_default=False, help="Bytes of files per second at most, such as 10M."),
    ] = None,
    no_resume: Annotated[bool, option("--no-resume", help="Do not go on from what an earlier run has left.")] = False,
    retries: Retries = None,
    timeout: Timeout = None,
    durability: Annotated[
        DurabilityName,
        option("--durability", help="none: wait for no disk, unless the server does; file: sync each file."),
    ] = DurabilityName.BATCH,
    verify: Annotated[
        VerifyName,
        option("--verify", help="disk: read back what was written, past the cache; send again what it did not keep."),
    ] = VerifyName.NONE,
    no_times: Annotated[
        bool, option("--no-times", help="Do not keep modification times; the next run has to read such files again.")
    ] = False,
    no_perms: Annotated[
        bool, option("--no-perms", help="Do not keep permissions: new files get the usual ones, others keep theirs.")
    ] = False,
    owner: Annotated[
        bool, option("--owner", help="Keep user and group, by their numbers; the receiving side must run as root.")
    ] = False,
    xattrs: Annotated[
        bool, option("--xattrs", help="Keep extended attributes: user.*, and all that a receiver who is root may set.")
    ] = False,
    manifest: Annotated[
        str | None,
        option(
            "--manifest",
            metavar="FILE",
            show_default=False,
            help="Keep digests of what stands at DST, for 'verify' and for files that move.",
        ),
    ] = None,
    repair: Annotated[
        bool, option("--repair", help="Compare DST with the manifest, and fetch only the chunks that are wrong.")
    ] = False,
    token_file: TokenFile = None,
) -> None:
    """Copy files and directories to or from a server.

    DIR copies the directory by name, DIR/ its contents. - is stdin, which goes to one file on a server, or stdout, to
    which one file goes (--json goes to stderr then). What goes through - takes one connection, whatever -j says: its
    bytes come in order.

    When the connection is lost it reconnects and goes on; interrupted, the same command goes on where it stopped. What
    came from stdin cannot be read again: if the command is interrupted, or the server is restarted, nothing is left.
    """
    from fsmux.cli import transfer as command

    level = verbosity(verbose, quiet)
    options = command.TransferOptions(
        tuple(paths), dry_run, level, json, progress.value, checksum, update, delete, tuple(exclude or ()),
        tuple(include or ()), files_from, from0, connections, streams, chunk_size, bwlimit, not no_resume, retries,
        timeout, durability.value, verify.value, not no_times, not no_perms, owner, xattrs, manifest, repair,
        token_file,
    )  # fmt: skip
    told = json and paths[-1:] != ["-"]  # where data goes, nothing is told
    raise typer.Exit(guard(lambda: command.run(ctx, options), level, json=told))


@app.command("ls")
def ls(
    ctx: typer.Context,
    url: Url,
    long: Annotated[bool, option("--long", "-l", help="Mode, size and time, too.")] = False,
    recursive: Annotated[bool, option("--recursive", "-R", help="Everything beneath.")] = False,
    json: Json = False,
    timeout: Timeout = None,
    token_file: TokenFile = None,
    verbose: Verbose = 0,
) -> None:
    """List a directory on a server."""
    from fsmux.cli import files

    def listed() -> int:
        return files.ls(files.target(ctx, url, timeout, token_file, verbose), long, recursive, json)

    raise typer.Exit(guard(listed, verbose, json=json))


@app.command("stat")
def stat(
    ctx: typer.Context,
    url: Url,
    json: Json = False,
    timeout: Timeout = None,
    token_file: TokenFile = None,
    verbose: Verbose = 0,
) -> None:
    """Show what stands under a name on a server."""
    from fsmux.cli import files

    def described() -> int:
        return files.stat(files.target(ctx, url, timeout, token_file, verbose), json)

    raise typer.Exit(guard(described, verbose, json=json))


@app.command("rm")
def rm(
    ctx: typer.Context,
    url: Url,
    # Not option(): what is set for listings must not make this remove trees.
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="A directory with all that is in it.")] = False,
    timeout: Timeout = None,
    token_file: TokenFile = None,
    verbose: Verbose = 0,
) -> None:
    """Remove a file, or a directory, on a server."""
    from fsmux.cli import files

    raise typer.Exit(guard(lambda: files.rm(files.target(ctx, url, timeout, token_file, verbose), recursive), verbose))


@app.command("mkdir")
def mkdir(
    ctx: typer.Context,
    url: Url,
    parents: Annotated[
        bool, option("--parents", "-p", help="And those above it, and no error if it is there.")
    ] = False,
    timeout: Timeout = None,
    token_file: TokenFile = None,
    verbose: Verbose = 0,
) -> None:
    """Make a directory on a server."""
    from fsmux.cli import files

    raise typer.Exit(guard(lambda: files.mkdir(files.target(ctx, url, timeout, token_file, verbose), parents), verbose))


@app.command("mv")
def mv(
    ctx: typer.Context,
    url: Url,
    new: Annotated[str, typer.Argument(metavar="URL", show_default=False, help="The new name, on the same server.")],
    force: Annotated[bool, option("--force", "-f", help="Replace what stands there.")] = False,
    timeout: Timeout = None,
    token_file: TokenFile = None,
    verbose: Verbose = 0,
) -> None:
    """Rename a file or a directory on a server."""
    from fsmux.cli import files

    raise typer.Exit(guard(lambda: files.mv(files.target(ctx, url, timeout, token_file, verbose), new, force), verbose))


@app.command("clean")
def clean(
    directory: Annotated[
        str, typer.Argument(metavar="PATH", show_default=False, help="A directory that is served, or was copied into.")
    ],
    dry_run: Annotated[bool, option("--dry-run", "-n", help="Show what would be removed, and remove nothing.")] = False,
    all: Annotated[bool, option("--all", help="Whatever its age; what is in use stays.")] = False,
    older_than: Annotated[
        str | None,
        option("--older-than", metavar="AGE", show_default=False, help="Such as 12h or 3d. The default is 14d."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show and remove what interrupted transfers have left. Without it the next transfer does so, after 14 days."""
    from fsmux.cli import clean as command

    options = command.CleanOptions(directory, dry_run, all, older_than, json, verbosity(0, quiet))
    raise typer.Exit(guard(lambda: command.run(options), options.verbosity, blocking=True))


@app.command("verify")
def verify(
    path: Annotated[
        str, typer.Argument(metavar="PATH", show_default=False, help="A file or directory on this machine.")
    ],
    manifest: Annotated[
        str | None,
        option("--manifest", metavar="FILE", show_default=False, help="The default is PATH.fsmux-manifest."),
    ] = None,
    extra: Annotated[
        bool, option("--extra", help="Tell files that are not in the manifest, too; exit code 3.")
    ] = False,
    create: Annotated[
        str | None,
        option(
            "--create", metavar="FILE", show_default=False, help="Do not compare: write a manifest of what is there."
        ),
    ] = None,
    sha256: Annotated[
        bool, option("--sha256", help="Do not compare: print lines that 'sha256sum -c' understands.")
    ] = False,
    json: Json = False,
    progress: Progress = ProgressName.AUTO,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Compare files with the manifest that 'transfer --manifest' or 'verify --create' has made of them.

    Names the files and the chunks that have changed, reading from the disk and not from memory. Exit codes: 7 damaged,
    4 missing. 'transfer --repair' fetches what is wrong.
    """
    from fsmux.cli import verify as command

    level = verbosity(verbose, quiet)
    options = command.VerifyOptions(path, manifest, extra, create, sha256, json, progress.value, level)
    raise typer.Exit(guard(lambda: command.run(options), level, json=json))


@app.command("demo")
def demo(
    directory: Annotated[
        str | None,
        typer.Argument(metavar="[DIR]", show_default=False, help="Where to work; a new directory if not given."),
    ] = None,
) -> None:
    """Transfer a real tree on this machine, kill it half-way, resume it, compare every byte."""
    from pathlib import Path

    from fsmux.cli import demo as command

    raise typer.Exit(guard(lambda: command.run(None if directory is None else Path(directory)), 0, blocking=True))


@app.command("bench")
def bench(
    directory: Annotated[
        str | None,
        option("--dir", metavar="DIR", show_default=False, help="Work in here instead of where temporary files go."),
    ] = None,
    size: Annotated[str, option("--size", metavar="SIZE", help="Bytes to move in one run.")] = "256MiB",
    seconds: Seconds = 20.0,
    json: Json = False,
) -> None:
    """Measure fsmux on this machine, beside a loop without a protocol, in about half a minute."""
    from fsmux.cli import bench as command

    options = command.BenchOptions(directory, size, seconds, json)
    raise typer.Exit(guard(lambda: command.run(options), 0, blocking=True))


@token_app.command("new")
def token_new(
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="NAME", help="Also print the stored key for the user NAME of a users file."),
    ] = None,
) -> None:
    """Make a token of 192 random bits and print it."""
    from fsmux.cli import token

    raise typer.Exit(guard(lambda: token.new(key), 0, blocking=True))


def main(args: list[str]) -> None:
    """Run a command line; leaves by SystemExit."""
    try:
        asks_for_help = not args or any(arg in ("-h", "--help") for arg in args)
        config = Config() if asks_for_help else load_config(config_path(os.environ), option_kinds)
    except FsmuxError as error:
        sys.exit(report(error, 0))
    command = typer.main.get_command(part_for(args))
    command.main(args=args, prog_name="fsmux", default_map=config.defaults, obj={"token": config.token, "args": args})


def option_kinds() -> dict[str, dict[str, Kind]]:
    """What the options of each command take, by their Python names."""
    command: Any = typer.main.get_command(app)
    return {
        name: {param.name: kind_of(param) for param in sub.params if param.param_type_name == "option" and param.envvar}
        for name, sub in command.commands.items()
        if name != "token"
    }


def part_for(args: list[str]) -> typer.Typer:
    """The application with no other command than the one that ``args`` begin with, if they do, and the whole otherwise.

    What Typer makes of all the options takes 12 ms, and 4 of that for the command that has the most (measured).
    """
    part = copy(app)
    part.registered_commands = [info for info in app.registered_commands if info.name in args[:1]]
    part.registered_groups = [info for info in app.registered_groups if info.name in args[:1]]
    return part if part.registered_commands or part.registered_groups else app
