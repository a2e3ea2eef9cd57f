"""Authentication: the exchange between two step objects, tokens, and the files that hold them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st

from fsmux import auth
from fsmux.auth import (
    DEFAULT_USER,
    MECHANISM,
    ClientAuth,
    Keys,
    ServerAuth,
    User,
    check_token,
    make_token,
    read_token_file,
    read_users_file,
    single_user,
)
from fsmux.cli.app import option_kinds
from fsmux.cli.config import load_config
from fsmux.errors import AuthError, UsageError
from fsmux.wire.messages import Auth

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN = "correct-horse-battery-staple"
USERS = single_user(TOKEN) | {"alice": User("alice", Keys.from_token("alice", TOKEN), read_only=True)}


def begin(client: ClientAuth, mechanisms: Sequence[str]) -> Auth | None:
    """Its first message, if the server wants one."""
    first = client.first()
    return first if client.wanted(mechanisms) else None


def converse(client: ClientAuth, server: ServerAuth) -> tuple[User | None, list[Auth]]:
    """Run a whole exchange; the user, and every message that crossed."""
    exchange = server.start()
    message = begin(client, server.mechanisms)
    user, crossed = None, []
    while message is not None:
        reply, user = exchange.step(message)
        crossed += [message, reply]
        message = client.step(reply)
        assert (message is None) == (user is not None) == reply.done
    return user, crossed


def fails_at(client: ClientAuth, server: ServerAuth) -> tuple[int, str]:
    """At which step of the server the exchange ends, and with which sentence."""
    exchange = server.start()
    message = begin(client, server.mechanisms)
    for step in range(1, 5):
        assert message is not None
        try:
            reply, _ = exchange.step(message)
        except AuthError as error:
            with pytest.raises(AuthError):
                exchange.step(message)
            return step, str(error)
        message = client.step(reply)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(("name", "known_as"), [("", DEFAULT_USER), ("alice", "alice")])
def test_who_knows_the_token_is_let_in_and_the_token_does_not_cross(name: str, known_as: str) -> None:
    user, crossed = converse(ClientAuth(name, TOKEN), ServerAuth(USERS))
    assert user is USERS[known_as]
    assert len(crossed) == 4
    assert crossed[0].mechanism == MECHANISM
    assert not any(TOKEN.encode() in message.data for message in crossed)
    assert all(len(message.data) < 512 for message in crossed)


def test_a_wrong_token_and_an_unknown_user_cannot_be_told_apart() -> None:
    server = ServerAuth(USERS)
    wrong = fails_at(ClientAuth("alice", make_token()), server)
    unknown = fails_at(ClientAuth("mallory", TOKEN), server)
    assert wrong == unknown
    assert wrong[0] == 2


def test_the_salt_of_an_unknown_user_looks_real_and_survives_a_restart() -> None:
    def salt(name: str) -> bytes:
        exchange = ServerAuth(USERS).start()
        message = begin(ClientAuth(name, TOKEN), [MECHANISM])
        assert message is not None
        return exchange.step(message)[0].data.split(b",s=")[1]

    assert salt("mallory") == salt("mallory")
    assert salt("mallory") != salt("eve")
    assert salt("alice") == salt("alice")
    assert len(salt("mallory")) == len(salt("alice"))


def test_a_server_that_does_not_know_the_token_is_found_out() -> None:
    class Accomplice(ServerAuth):
        """Knows the stored key (from a stolen copy, say) but not the server's key."""

        def lookup(self, name: str) -> tuple[User | None, Keys]:
            user, keys = super().lookup(name)
            return user, Keys(keys.salt, keys.stored_key, bytes(32))

    with pytest.raises(AuthError, match="could not prove"):
        converse(ClientAuth("", TOKEN), Accomplice(USERS))


def test_a_server_cannot_cut_the_proof_short() -> None:
    client = ClientAuth("", TOKEN)
    begin(client, [MECHANISM])
    with pytest.raises(AuthError, match="without proving"):
        client.step(Auth(data=b"v=AAAA", done=True))


def test_a_server_cannot_make_the_client_compute_for_long() -> None:
    client = ClientAuth("", TOKEN)
    first = begin(client, [MECHANISM])
    assert first is not None
    nonce = first.data.decode().partition(",r=")[2]
    with pytest.raises(AuthError, match="more computation"):
        client.step(Auth(data=f"r={nonce}x,s=AAAAAAAAAAAAAAAAAAAAAA==,i=9999999".encode()))


def test_without_users_nobody_is_asked() -> None:
    assert ServerAuth({}).mechanisms == ()
    assert begin(ClientAuth("", None), []) is None


def test_what_is_missing_is_said_before_anything_is_sent() -> None:
    with pytest.raises(AuthError, match="FSMUX_TOKEN"):
        begin(ClientAuth("", None), [MECHANISM])
    with pytest.raises(AuthError, match="asks for no token"):
        begin(ClientAuth("", TOKEN), [])
    with pytest.raises(AuthError, match="does not offer"):
        begin(ClientAuth("", TOKEN), ["PLAIN"])
    with pytest.raises(AuthError, match="does not allow"):
        begin(ClientAuth("a\nb", TOKEN), [MECHANISM])


@pytest.mark.parametrize("token", [None, TOKEN])
def test_to_get_ready_is_to_import_what_a_token_needs(token: str | None) -> None:
    code = f"""
import sys
from fsmux import auth, importing
auth.ClientAuth("", {token!r}).get_ready()
print(*sys.modules, *importing._alone)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert ("scramp.core" in found) == (token is not None)
    assert "asn1crypto.x509" not in found, "what is not used takes its time, too"


def test_another_mechanism_is_refused() -> None:
    with pytest.raises(AuthError, match=MECHANISM):
        ServerAuth(USERS).start().step(Auth("PLAIN", b"\0user\0secret"))


@given(st.lists(st.binary(max_size=80) | st.text("n,=cr:asip0AQ", max_size=60).map(str.encode), min_size=1, max_size=3))
def test_whatever_a_peer_sends_is_an_answer_or_a_refusal(messages: list[bytes]) -> None:
    exchange, client = ServerAuth(USERS).start(), ClientAuth("", TOKEN)
    begin(client, [MECHANISM])
    for data in messages:
        for step in (exchange.step, client.step):
            try:
                answer = step(Auth(MECHANISM, data))
            except AuthError:
                continue
            assert not (isinstance(answer, tuple) and answer[1]), "nobody gets in by chance"


def test_a_replayed_proof_is_worth_nothing() -> None:
    server = ServerAuth(USERS)
    _, crossed = converse(ClientAuth("", TOKEN), server)
    exchange = server.start()
    exchange.step(crossed[0])
    with pytest.raises(AuthError):
        exchange.step(crossed[2])


def test_stored_keys_print_as_themselves_and_hide_in_a_repr() -> None:
    keys = Keys.from_token("alice", TOKEN)
    assert Keys.parse(str(keys)) == keys
    assert keys.stored_key.hex() not in repr(keys)
    assert repr(keys.stored_key) not in repr(keys)


@given(st.text(max_size=40) | st.text("SCRAM-H256$409:=", max_size=60))
def test_no_other_text_is_a_stored_key(text: str) -> None:
    with pytest.raises(ValueError, match="stored key"):
        Keys.parse(text)


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 129])
def test_there_are_no_keys_for_a_name_that_a_users_file_refuses(name: str) -> None:
    with pytest.raises(UsageError, match="not a user name: 1 to 128") as caught:
        Keys.from_token(name, TOKEN)
    assert str(caught.value).isprintable()


def test_new_tokens_are_long_different_and_need_no_quoting() -> None:
    tokens = {make_token() for _ in range(200)}
    assert len(tokens) == 200
    for token in tokens:
        assert len(token) == 32
        assert not token.startswith("-")
        assert check_token(token, "here") == token


# ---- files ----------------------------------------------------------------------------------------------------------


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_token_file(tmp_path: Path) -> None:
    path = private(tmp_path / "token", f"{TOKEN}\n")
    assert read_token_file(path) == TOKEN


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "token", TOKEN)
    os.chmod(path, mode)
    with pytest.raises(AuthError, match="chmod 600"):
        read_token_file(path)


@pytest.mark.parametrize("content", ["", "\n", "a b " + TOKEN, f"{TOKEN}\n{TOKEN}", "\x1b" + TOKEN, "é" * 20])
def test_a_file_without_a_token(tmp_path: Path, content: str) -> None:
    with pytest.raises(AuthError, match="holds no token"):
        read_token_file(private(tmp_path / "token", content))


def test_other_things_that_are_no_token_files(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="fewer than"):
        read_token_file(private(tmp_path / "weak", "secret"))
    with pytest.raises(AuthError, match="larger than"):
        read_token_file(private(tmp_path / "long", "x" * 5000))
    with pytest.raises(AuthError, match="no such file"):
        read_token_file(str(tmp_path / "missing"))
    (tmp_path / "link").symlink_to(tmp_path / "weak")
    with pytest.raises(AuthError, match="symbolic link"):
        read_token_file(str(tmp_path / "link"))
    with pytest.raises(AuthError, match="not a regular file"):
        read_token_file(str(tmp_path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(AuthError, match="not a regular file"):
        read_token_file(str(tmp_path / "pipe"))


def test_a_users_file(tmp_path: Path) -> None:
    private(tmp_path / "bob.token", TOKEN)
    path = private(
        tmp_path / "users.toml",
        f'[users.alice]\nkey = "{Keys.from_token("alice", TOKEN)}"\nread_only = true\nroot = "{tmp_path}"\n'
        '[users.bob]\ntoken_file = "bob.token"\n',
    )
    users = read_users_file(path)
    assert users == {
        "alice": User("alice", Keys.from_token("alice", TOKEN), True, str(tmp_path)),
        "bob": User("bob", Keys.from_token("bob", TOKEN)),
    }
    assert converse(ClientAuth("bob", TOKEN), ServerAuth(users))[0] == users["bob"]


def test_the_examples_of_the_documentation_are_files_that_can_be(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "CONFIGURATION.md").read_text()
    config, users = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    found = load_config(private(tmp_path / "config.toml", config), option_kinds)
    assert found.defaults["transfer"]["streams"] == "32"
    assert found.defaults["ls"] == {"token_file": "/home/alice/.config/fsmux/token", "timeout": "30"}
    keys = Keys.from_token("alice", TOKEN)
    users = users.replace("SCRAM-SHA-256$4096:…", str(keys)).replace("/srv/alice", str(tmp_path))
    private(tmp_path / "bob.token", TOKEN)
    assert read_users_file(private(tmp_path / "users.toml", users)) == {
        "alice": User("alice", keys, False, str(tmp_path)),
        "bob": User("bob", Keys.from_token("bob", TOKEN), True),
    }


KEY = f'key = "{Keys.from_token("a", TOKEN)}"'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold tables"),
        ("x = 1", "must hold tables"),
        ("[user.a]", "must hold tables"),
        ("[", "is not TOML"),
        ("users = 3", "must hold tables"),
        ("[users]\na = 1", "a table is expected"),
        ("[users.a]", "exactly one"),
        (f"[users.a]\n{KEY}\ntoken_file='x'", "exactly one"),
        (f"[users.a]\n{KEY}\nreadonly=true", "readonly is no option"),
        (f"[users.a]\n{KEY}\nread_only='yes'", "wrong kind"),
        (f"[users.a]\n{KEY}\nroot='srv'", "absolute"),
        (f"[users.a]\n{KEY}\nroot='/nowhere/a'", r"users\.toml, user a: root /nowhere/a: no such file or directory"),
        (f"[users.a]\n{KEY}\nroot='/dev/null'", r"users\.toml, user a: root /dev/null: not a directory"),
        (f'[users.a]\n{KEY}\nroot="/\\u0000"', r"users\.toml, user a: root /\\x00: .*null"),
        ("[users.a]\nkey='x'", "token new --key"),
        ("[users.a]\ntoken_file='missing'", "no such file"),
        (f'[users.""]\n{KEY}', "not a user name"),
        (f'[users."a\\nb"]\n{KEY}', "not a user name"),
        (f"[users.{'a' * 129}]\n{KEY}", "not a user name"),
    ],
)
def test_mistakes_in_a_users_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(AuthError, match=says) as caught:
        read_users_file(private(tmp_path / "users.toml", text))
    assert str(caught.value).isprintable()


def test_scramp_agrees_with_the_smallest_count_of_the_rfc() -> None:
    assert int(scramp.ScramMechanism(MECHANISM).iteration_count) == auth.ITERATIONS
