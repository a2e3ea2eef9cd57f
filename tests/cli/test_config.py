"""``config.toml``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fsmux.cli.config import FLAG, LIST, NUMBER, TEXT, WHOLE, Config, Kind, config_path, load_config
from fsmux.errors import FsmuxError

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS: dict[str, dict[str, Kind]] = {
    "transfer": {
        "streams": WHOLE,
        "chunk_size": TEXT,
        "exclude": LIST,
        "write_all": FLAG,
        "durability": ("none", "file"),
    },
    "ls": {"timeout": NUMBER, "streams": WHOLE},
}
TOKEN = "x" * 20


def load(tmp_path: Path, text: str, mode: int = 0o644) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    return load_config(str(path), lambda: COMMANDS)


def test_no_file_is_an_empty_file(tmp_path: Path) -> None:
    assert load_config(str(tmp_path / "missing"), lambda: COMMANDS) == Config()
    assert load(tmp_path, "").token is None


def test_options_for_all_commands_and_for_one(tmp_path: Path) -> None:
    config = load(
        tmp_path, 'streams = 4\n[transfer]\nchunk-size = "8MiB"\nexclude = ["*.o"]\nstreams = 5\nwrite_all = true'
    )
    assert config.defaults == {
        "transfer": {"streams": "5", "chunk_size": "8MiB", "exclude": ["*.o"], "write_all": True},
        "ls": {"streams": "4"},
    }


def test_values_are_taken_in_every_form_that_means_one_thing(tmp_path: Path) -> None:
    config = load(tmp_path, 'exclude = "*.o"\nchunk-size = 65536\ntimeout = 2\n[ls]\nstreams = "3"\ntimeout = inf')
    assert config.defaults == {
        "transfer": {"exclude": ["*.o"], "chunk_size": "65536"},
        "ls": {"timeout": "inf", "streams": "3"},
    }


def test_a_token_only_in_a_private_file(tmp_path: Path) -> None:
    config = load(tmp_path, f'token = "{TOKEN}"', 0o600)
    assert config.token == TOKEN
    assert TOKEN not in repr(config)
    with pytest.raises(FsmuxError, match="chmod 600"):
        load(tmp_path, f'token = "{TOKEN}"', 0o644)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is not TOML"),
        ("stream = 4", "stream is no option of any command"),
        ("[transfer]\nstream = 4", "stream is no option of transfer"),
        ("[tranfser]\nstreams = 4", r"\[tranfser\] is no command"),
        ("[transfer]\nexclude = [1]", "config.toml: exclude should be a list of texts in quotes"),
        ("exclude = true", "exclude should be a list"),
        ("streams = 2026-01-01", "streams should be a whole number"),
        ("streams = []", "config.toml: streams should be a whole number"),
        ("streams = true", "streams should be a whole number"),
        ("streams = 4.5", "streams should be a whole number"),
        ('streams = "many"', "streams should be a whole number"),
        ("timeout = []", "timeout should be a number"),
        ("timeout = nan", "timeout should be a number"),
        ("write-all = []", "write-all should be true or false"),
        ('write-all = "yes"', "write-all should be true or false"),
        ("chunk-size = true", "chunk-size should be text in quotes"),
        ("chunk-size = []", "chunk-size should be text in quotes"),
        ('[transfer]\ndurability = "fil"', "durability should be one of none, file"),
        ("durability = true", "durability should be one of none, file"),
        ('"\\u001b" = 1', "is no option"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FsmuxError, match=says) as caught:
        load(tmp_path, text)
    assert str(caught.value).isprintable()


def test_where_it_is() -> None:
    assert config_path({"FSMUX_CONFIG": "/x"}) == "/x"
    assert config_path({}) == os.path.expanduser("~/.config/fsmux/config.toml")
    assert config_path({"XDG_CONFIG_HOME": "/x"}) == "/x/fsmux/config.toml"
    assert config_path({"XDG_CONFIG_HOME": "x"}) == config_path({}), "as the specification wants it"
