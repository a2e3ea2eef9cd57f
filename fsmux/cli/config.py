"""``config.toml``: what a person does not want to type every time.

Theory: flag beats environment beats this file beats default.  The file names options as the command line does; at its
top level for every command that has such an option, in a table ``[COMMAND]`` for that command alone:

    streams = 32
    token-file = "/etc/fsmux/token"    # or token = "…", if nobody else may read this file

    [transfer]
    exclude = ["*.o", ".git/"]

    [serve]
    listen = "[::]:9000"

A name that no option has is an error: a misspelt option that is silently without effect is worse than a message.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from fsmux.errors import UsageError
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_CONFIG = 1024 * 1024


class Config(Struct, frozen=True):
    """``defaults`` maps a command to its options' values, by the options' Python names."""

    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    token: str | None = None

    def __repr__(self) -> str:
        return f"Config({self.defaults!r})"  # and not the token


def config_path(environ: Mapping[str, str]) -> str:
    """``FSMUX_CONFIG``, or the place that the XDG Base Directory Specification has for such files."""
    if path := environ.get("FSMUX_CONFIG"):
        return path
    base = environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.config"), "fsmux", "config.toml")


def load_config(path: str, option_names: Callable[[], Mapping[str, frozenset[str]]]) -> Config:
    """The file at ``path``, none being the same as an empty one.  Raises :class:`UsageError` or AuthError.

    ``option_names``, which is called if there is a file, has the options' Python names of each command.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_CONFIG)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    import tomllib

    try:
        document = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{printable(path)} is not TOML: {printable(str(error))}") from None

    commands = option_names()
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    common = {name: value for name, value in document.items() if name not in tables}
    token = common.pop("token", None)
    if token is not None:
        token = _token(path, token)
    if unknown := [name for name in tables if name not in commands]:
        raise UsageError(f"{printable(path)}: [{printable(unknown[0])}] is no command with options")
    defaults: dict[str, dict[str, Any]] = {command: {} for command in commands}
    for name, value in common.items():
        takers = [command for command, options in commands.items() if _python_name(name) in options]
        if not takers:
            raise UsageError(f"{printable(path)}: {printable(name)} is no option of any command")
        for command in takers:
            defaults[command][_python_name(name)] = _value(path, name, value)
    for command, table in tables.items():
        for name, value in table.items():
            if _python_name(name) not in commands[command]:
                raise UsageError(f"{printable(path)}: {printable(name)} is no option of {command}")
            defaults[command][_python_name(name)] = _value(path, name, value)
    return Config(defaults, token)


def _python_name(option: str) -> str:
    return option.replace("-", "_")


def _value(path: str, name: str, value: object) -> object:
    """As the command line would have given it: text, a list of texts, or a flag."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"{printable(path)}: {printable(name)} has a value of the wrong kind")


def _token(path: str, token: object) -> str:
    from fsmux.auth import check_token, read_private_file

    read_private_file(os.path.realpath(path), "configuration with a token", _MAX_CONFIG)
    return check_token(str(token), path)
