"""The options that commands share, and what is worth doing to them before a command sees them."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand

from fsmux.backoff import RETRIES
from fsmux.errors import UsageError
from fsmux.limits import CONNECT_SECONDS, DEAD_SECONDS, MAX_FILES_AT_ONCE, MAX_LANES
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsmux.plan.filters import Rule

Number = TypeVar("Number", int, float)


class ProgressName(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class DurabilityName(StrEnum):
    NONE = "none"
    BATCH = "batch"
    FILE = "file"


class VerifyName(StrEnum):
    NONE = "none"
    DISK = "disk"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def option(name: str, *more: str, help: str, **settings: Any) -> Any:
    """A long option that ``FSMUX_<NAME>`` sets as well."""
    return typer.Option(name, *more, help=help, envvar=env_name(name), **settings)


def env_name(name: str) -> str:
    return "FSMUX_" + name.lstrip("-").replace("-", "_").upper()


def number(value: float | None) -> float | None:
    """Whatever is compared with nan is false, its range included."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value


Verbose = Annotated[
    int, option("--verbose", "-v", count=True, show_default=False, help="Say more; -vv for tracebacks.")
]
Quiet = Annotated[bool, option("--quiet", "-q", help="Say nothing but errors.")]
Json = Annotated[bool, option("--json", help="Objects on stdout, one a line.")]
Progress = Annotated[ProgressName, option("--progress", help="Bars on a terminal, always, or no progress at all.")]
Timeout = Annotated[
    float | None,
    option(
        "--timeout", min=0.1, metavar="SECONDS", show_default=False, callback=number,
        help=f"How long a peer that cannot be reached, or is silent, is waited for ({CONNECT_SECONDS:.0f}, "
        f"{DEAD_SECONDS:.0f}).",
    ),
]  # fmt: skip
Seconds = Annotated[
    float,
    option("--seconds", min=0, metavar="N", callback=number, help="Begin no further round after this; each has one."),
]
Retries = Annotated[
    int | None,
    option(
        "--retries", min=0, metavar="N", show_default=False,
        help=f"Attempts in a row without progress before giving up ({RETRIES}). Named, it holds for the first "
        "connection, too.",
    ),
]  # fmt: skip
Connections = Annotated[
    int,
    option(
        "--connections", "-j", min=1, max=MAX_LANES, metavar="N", help="Connections at once: for lossy or long links."
    ),
]
Streams = Annotated[
    int, option("--streams", min=1, max=MAX_FILES_AT_ONCE, metavar="N", help="Files on their way at once.")
]
TokenFile = Annotated[
    str | None,
    option("--token-file", metavar="FILE", help="A file with the token, readable by nobody else. Or set FSMUX_TOKEN."),
]

FILTERS: Final = "fsmux.filters"


class OrderedFilters(TyperCommand):
    """A command that remembers in which order ``--exclude`` and ``--include`` were written.

    The parser collects each option by itself, but the first rule that matches decides, so their order is their meaning.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[FILTERS] = filter_order(args)
        return super().parse_args(ctx, args)


def filter_order(args: Sequence[str]) -> list[tuple[bool, str]]:
    """(include, pattern) of every filter on a command line."""
    found = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            break
        name, equals, value = arg.partition("=")
        if name in ("--exclude", "--include"):
            found.append((name == "--include", value if equals else next(rest, "")))
    return found


def filter_rules(ctx: typer.Context, exclude: Sequence[str], include: Sequence[str]) -> list[Rule]:
    """The rules in order: those of the command line first, then what environment and configuration let in or out."""
    from fsmux.plan.filters import Rule

    ordered = [Rule(*item) for item in ctx.meta.get(FILTERS, [])]
    typed = {rule.include for rule in ordered}
    return [
        *ordered,
        *(Rule(True, pattern) for pattern in include if True not in typed),
        *(Rule(False, pattern) for pattern in exclude if False not in typed),
    ]


def verbosity(verbose: int, quiet: bool) -> int:
    return -1 if quiet else verbose


def typed(ctx: typer.Context, name: str) -> bool:
    """Whether an option, by its Python name, was given on the command line, and is not configured."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def find_token(ctx: typer.Context, token_file: str | None) -> str | None:
    """The token: from ``--token-file``, FSMUX_TOKEN, FSMUX_TOKEN_FILE or the configuration, in this order."""
    from fsmux.auth import check_token, read_token_file

    given = typed(ctx, "token_file")
    if not given and (token := os.environ.get("FSMUX_TOKEN")):
        return check_token(token.strip(), "FSMUX_TOKEN")
    configured: str | None = (ctx.find_root().obj or {}).get("token")
    source = ctx.get_parameter_source("token_file")
    if token_file and (given or not configured or (source is not None and source.name == "ENVIRONMENT")):
        return read_token_file(token_file)
    return configured


def parsed(option: str, parse: Callable[[str], Number], text: str) -> Number:
    """The value of an option; what is wrong with it is told with the option's name."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def chunk_size(text: str) -> int:
    """A chunk size, which must be one that the protocol allows."""
    from fsmux.limits import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
    from fsmux.units import format_exact, parse_size

    size = parsed("--chunk-size", parse_size, text)
    if size & (size - 1) or not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE:
        low, high = format_exact(MIN_CHUNK_SIZE), format_exact(MAX_CHUNK_SIZE)
        raise UsageError(f"--chunk-size {printable(text)}: a chunk is a power of two from {low} to {high}")
    return size
