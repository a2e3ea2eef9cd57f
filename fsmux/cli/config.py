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
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct, field

from fsmux.errors import UsageError
from fsmux.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_CONFIG = 1024 * 1024

Kind: TypeAlias = str | tuple[str, ...]
"""What an option takes, in words that follow "should be"; several are the only texts that it takes."""

FLAG: Final = "true or false"
WHOLE: Final = "a whole number"
NUMBER: Final = "a number"
TEXT: Final = "text in quotes"
LIST: Final = "a list of texts in quotes"


def kind_of(param: Any) -> Kind:
    """What an option of the command line takes."""
    if param.is_flag or param.multiple:
        return FLAG if param.is_flag else LIST
    kind = param.type.name.removesuffix(" range")
    return tuple(param.type.choices) if kind == "choice" else {"int": WHOLE, "float": NUMBER}.get(kind, TEXT)


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


def load_config(path: str, option_kinds: Callable[[], Mapping[str, Mapping[str, Kind]]]) -> Config:
    """The file at ``path``, none being the same as an empty one.  Raises :class:`UsageError` or AuthError.

    ``option_kinds``, which is called if there is a file, has what each command's options take, by their Python names.
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

    commands = option_kinds()
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    common = {name: value for name, value in document.items() if name not in tables}
    token = common.pop("token", None)
    if token is not None:
        token = _token(path, token)
    if unknown := [name for name in tables if name not in commands]:
        raise UsageError(f"{printable(path)}: [{printable(unknown[0])}] is no command with options")
    defaults: dict[str, dict[str, Any]] = {command: {} for command in commands}

    def note(command: str, name: str, value: object) -> None:
        option = _python_name(name)
        defaults[command][option] = _value(path, name, value, commands[command][option])

    for name, value in common.items():
        takers = [command for command, options in commands.items() if _python_name(name) in options]
        if not takers:
            raise UsageError(f"{printable(path)}: {printable(name)} is no option of any command")
        for command in takers:
            note(command, name, value)
    for command, table in tables.items():
        for name, value in table.items():
            if _python_name(name) not in commands[command]:
                raise UsageError(f"{printable(path)}: {printable(name)} is no option of {command}")
            note(command, name, value)
    return Config(defaults, token)


def _python_name(option: str) -> str:
    return option.replace("-", "_")


def _value(path: str, name: str, value: object, kind: Kind) -> object:
    """As the command line would have given it: text, a list of texts, or a flag."""
    if kind == FLAG and isinstance(value, bool):
        return value
    if kind == LIST and isinstance(value, str):
        return [value]
    if kind == LIST and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if kind not in (FLAG, LIST) and isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value)
        if text in kind if isinstance(kind, tuple) else _is_number(text, kind):
            return text
    words = f"one of {', '.join(kind)}" if isinstance(kind, tuple) else kind
    raise UsageError(f"{printable(path)}: {printable(name)} should be {words}")


def _is_number(text: str, kind: str) -> bool:
    """Whether it is one of the kind that is wanted, if one is wanted."""
    if kind not in (WHOLE, NUMBER):
        return True
    try:
        return (int if kind == WHOLE else float)(text) == float(text)  # which nan is not
    except (ValueError, OverflowError):
        return False


def _token(path: str, token: object) -> str:
    from fsmux.auth import check_token, read_private_file

    read_private_file(os.path.realpath(path), "configuration with a token", _MAX_CONFIG)
    return check_token(str(token), path)
