"""``fsmux serve``: what the options allow, then the server, its log, and the words for whoever wants to connect."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from fsmux.cli.log import Log
from fsmux.cli.options import find_token, typed
from fsmux.cli.run import execute
from fsmux.cli.wording import shell_line
from fsmux.errors import UsageError, from_os_error
from fsmux.records import Durability, printable
from fsmux.urls import TCP, UNIX, Listen, Remote, check_listen, parse_listen

if TYPE_CHECKING:
    import typer

    from fsmux.auth import User
    from fsmux.server import Listening


class ServeOptions(Struct, frozen=True):
    """What was typed, in the order of the command's options."""

    directory: str
    listen: str
    port_file: str | None
    write: bool
    token_file: str | None
    users: str | None
    no_auth: bool
    plaintext: bool
    durability: str
    log_format: str
    verbosity: int


class Access(Struct, frozen=True):
    """Who is let in.  ``made`` if the token was made for this run, and has to be told to somebody."""

    token: str | None = None
    users: dict[str, User] | None = None
    made: bool = False


def run(ctx: typer.Context, options: ServeOptions) -> int:
    check_listen(parse_listen(options.listen), plaintext=options.plaintext, option="--plaintext")
    access = find_access(ctx, options)
    log = Log(sys.stderr, options.verbosity, json=options.log_format == "json")

    async def main() -> int:
        import trio

        from fsmux.server import serve

        async with trio.open_nursery() as nursery:
            server = partial(
                serve, options.directory, listen=options.listen, plaintext=options.plaintext, token=access.token,
                users=access.users, write=options.write, durability=Durability[options.durability.upper()],
                observer=log,
            )  # fmt: skip
            listening: Listening = await nursery.start(server)
            announce(listening.addresses, options, access, log)
        return 0

    return execute(main, options.verbosity, reporter=log)


def find_access(ctx: typer.Context, options: ServeOptions) -> Access:
    """Who may come in, from what was typed or else from what is configured.  Raises UsageError or AuthError."""
    from fsmux.auth import make_token, read_users_file

    values = {"token_file": options.token_file, "users": options.users, "no_auth": options.no_auth}
    chosen = {name for name, value in values.items() if value and typed(ctx, name)}
    if len(chosen) > 1:
        raise UsageError("choose one of --token-file, --users and --no-auth")
    if not chosen and not os.environ.get("FSMUX_TOKEN"):
        chosen = {name for name, value in values.items() if value}
        if len(chosen) > 1:
            raise UsageError("environment and configuration name several of token_file, users and no_auth; keep one")
    if "no_auth" in chosen:
        return Access()
    if "users" in chosen and options.users is not None:
        return Access(users=read_users_file(options.users))
    token = find_token(ctx, options.token_file)
    return Access(token) if token is not None else Access(make_token(), made=True)


def announce(addresses: tuple[str, ...], options: ServeOptions, access: Access, log: Log) -> None:
    """Say where the server is and what a client has to type; then write the port file, for who waits for it."""
    listens = [parse_listen(address) for address in addresses]
    if options.verbosity >= 0:
        _tell_people(listens, options, access, log)
    if options.verbosity >= 0 or access.made:  # a token that nobody is told would let nobody in
        _tell_command(listens[0], options, access, log)
    log.tick()
    if options.port_file:
        _write_port_file(options.port_file, addresses[0])


def _tell_people(listens: list[Listen], options: ServeOptions, access: Access, log: Log) -> None:
    how = "for reading and writing" if options.write else "read-only"
    log.say(f"fsmux: serving {printable(options.directory)} {how} on {', '.join(map(str, listens))}")
    if access.users is None and access.token is None:
        log.say("fsmux: without authentication: everybody who can connect is let in")


def _tell_command(listen: Listen, options: ServeOptions, access: Access, log: Log) -> None:
    url = shell_line([str(replace(client_url(listen), user=_user(access.users)))])
    prefix = f"FSMUX_TOKEN={access.token} " if access.made else ""
    shared = access.token is not None and not access.made and options.token_file
    flags = f" --token-file {shell_line([shared])}" if shared else ""
    log.say(f"  to download:  {prefix}fsmux transfer{flags} {url} .")
    if options.write:
        log.say(f"  to upload:    {prefix}fsmux transfer{flags} FILE {url}")


def _user(users: dict[str, User] | None) -> str:
    """Who a client says it is: the only one who may come, or a word to be replaced by one of several."""
    if not users:
        return ""
    return next(iter(users)) if len(users) == 1 else "USER"


def client_url(listen: Listen) -> Remote:
    """How a client calls this address; a wildcard is not an address that one can connect to."""
    if listen.socket_path:
        return Remote(UNIX, port=0, socket_path=os.path.abspath(listen.socket_path))
    host = socket.gethostname() if listen.host in ("", "0.0.0.0", "::") else listen.host
    return Remote(TCP, host=host, port=listen.port)


def _write_port_file(path: str, address: str) -> None:
    """Appears whole or not at all, for those who wait for it.

    One of an earlier run stands until then: if this server cannot listen, that one may be what is listening.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device is written to
            with open(path, "w") as there:
                there.write(f"{address}\n")
            return
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
        try:
            with open(fd, "w") as file:
                file.write(f"{address}\n")
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise from_os_error(error, printable(path)) from None
