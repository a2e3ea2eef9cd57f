"""SCRAM-SHA-256: the example of the RFC, a library that does the same, and what is refused."""

from __future__ import annotations

from base64 import b64decode

import pytest
import scramp
from hypothesis import example, given
from hypothesis import strategies as st

from fsmux import scram
from fsmux.scram import MECHANISM, MIN_ITERATIONS, Client, Server, prepare

PASSWORD = "pencil"
SALT = b"0123456789abcdef"
KEYS = (SALT, *scram.stored(PASSWORD, SALT, MIN_ITERATIONS))

names = st.text(min_size=1, max_size=12) | st.text("n=,=2C3Dé x", min_size=1, max_size=12)


def server(nonce: str | None = None) -> Server:
    return Server(lambda _: KEYS, MIN_ITERATIONS, nonce)


def test_the_example_of_rfc_7677() -> None:
    nonce, more = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    challenge = f"r={nonce}{more},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    proof = f"c=biws,r={nonce}{more},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    answer = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client = Client("user", PASSWORD, nonce)
    assert client.first() == f"n,,n=user,r={nonce}"
    assert client.final(challenge, 4096) == proof
    client.check(answer)
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    other = Server(lambda _: (salt, *scram.stored(PASSWORD, salt, 4096)), 4096, more)
    assert other.first(f"n,,n=user,r={nonce}") == challenge
    assert other.final(proof) == answer


@given(names, names)
@example("josé", "ﬁ\u00ad ªIX")
@example("\u0627\u0628", "\u0627a")
def test_a_library_means_the_same(name: str, password: str) -> None:
    """Both sides against scramp: the same names and passwords, the same keys, the same proofs."""
    try:
        other = scramp.ScramClient([MECHANISM], name, password, c_nonce="abc")
    except scramp.ScramException:
        with pytest.raises(ValueError):  # noqa: PT011  # which of the rules it is does not matter here
            Client(name, password)
        return
    opening = other.get_client_first()
    assert Client(name, password, "abc").first() == opening

    seen: list[str] = []
    keys = (SALT, *scram.stored(password, SALT, MIN_ITERATIONS))
    mechanism = scramp.ScramMechanism(MECHANISM)
    assert (*keys, MIN_ITERATIONS) == mechanism.make_auth_info(password, MIN_ITERATIONS, SALT)

    def lookup(found: str) -> tuple[bytes, bytes, bytes]:
        seen.append(found)
        return keys

    mine = Server(lookup, MIN_ITERATIONS)
    other.set_server_first(mine.first(opening))
    other.set_server_final(mine.final(other.get_client_final()))

    theirs = mechanism.make_server(lambda found: (seen.append(found), (*keys, MIN_ITERATIONS))[1])
    client = Client(name, password)
    theirs.set_client_first(client.first())
    theirs.set_client_final(client.final(theirs.get_server_first(), MIN_ITERATIONS))
    client.check(theirs.get_server_final())
    assert seen == [prepare(name)] * 2


@given(st.text(max_size=20))
def test_texts_are_prepared_as_the_library_prepares_them(text: str) -> None:
    try:
        expected = scramp.utils.saslprep(text)
    except scramp.ScramException:
        with pytest.raises(ValueError, match="SASLprep"):
            prepare(text)
    else:
        assert prepare(text) == expected


@pytest.mark.parametrize(
    "message",
    [
        "", "n", "n,", "n,,", "n,,n=a", "n,,n=,r=x", "n,,n=a,r=", "n,,r=x,n=a", "n,,m=1,n=a,r=x", "n,,n=a,r=x,m=1",
        "n,,n=a,r=x,n=b", "n,,n=a,r=x,", "n,,n=a,r=x,y", "n,a=b,n=a,r=x", "p=tls-unique,,n=a,r=x", "n,,n=a=b,r=x",
        "n,,n=a=2c,r=x", "n,,n=a\n,r=x", "n,,n=a,r=\u00e9", "n,,n=a,r=x y", "x,,n=a,r=x", "n,,n=\u00ad,r=x",
    ],
)  # fmt: skip
def test_an_opening_of_another_form_is_refused(message: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the caller has one answer for all of them
        server().first(message)


def test_an_extension_is_no_obstacle_and_is_proved() -> None:
    other = server()
    client = Client("a", PASSWORD, "x")
    opening = other.first(client.first() + ",y=more")
    with pytest.raises(ValueError, match="proof"):
        other.final(client.final(opening, MIN_ITERATIONS))  # it does not know what was added on the way


def test_a_peer_that_could_bind_channels_is_let_in() -> None:
    assert server("y").first("y,,n=a,r=x").startswith("r=xy,")


@pytest.mark.parametrize(
    "answer",
    [
        "r=ab,s=AAAAAAAAAAAAAAAA,i=4095", "r=ab,s=AAAAAAAAAAAA,i=4096", "r=a,s=AAAAAAAAAAAAAAAA,i=4096",
        "r=b,s=AAAAAAAAAAAAAAAA,i=4096", "r=ab,s=AAAAAAAAAAAAAAAA,i=04096", "r=ab,s=AAAAAAAAAAAAAAAA,i=x",
        "r=ab,s=AAAAAAAAAAAAAAAA,i=٤٠٩٦", "r=ab,s=AAAAAAAAAAAAAAAA,i=" + "9" * 5000, "r=ab,s=AAAAAAAAAAAAAAAA,i=-4096",
        "r=ab,s=AAA,i=4096", "r=ab,s=AAAAAAAAAAAAAAAA!,i=4096", "r=ab,i=4096,s=AAAAAAAAAAAAAAAA", "e=other-error", "",
        "r=ab,s=AAAAAAAAAAAAAAAA,i=4096,m=x", "r=ab c,s=AAAAAAAAAAAAAAAA,i=4096",
    ],
)  # fmt: skip
def test_a_challenge_of_another_form_is_refused(answer: str) -> None:
    client = Client("user", PASSWORD, "a")
    with pytest.raises(ValueError):  # noqa: PT011
        client.final(answer, MIN_ITERATIONS)
    with pytest.raises(ValueError):  # noqa: PT011
        client.check("v=====")


def test_nobody_is_made_to_compute_for_long() -> None:
    with pytest.raises(OverflowError):
        Client("user", PASSWORD, "a").final("r=ab,s=AAAAAAAAAAAAAAAA,i=4097", MIN_ITERATIONS)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("c=biws", "c=eSws"),
        lambda text: text.replace(",r=", ",r=x"),
        lambda text: text.replace(",p=", ",y=1,p="),
        lambda text: text.replace(",p=", ",p=A"),
        lambda text: text[:-4] + "AAA=",
        lambda text: text.partition(",p=")[0],
        lambda text: text.partition(",p=")[0] + ",p=",
        lambda text: text.partition(",p=")[0] + ",p=AAAA",
        lambda text: text + ",x=1",
    ],
)
def test_a_proof_that_is_changed_is_refused(change: object) -> None:
    assert callable(change)
    client, other = Client("user", PASSWORD), server()
    proof = client.final(other.first(client.first()), MIN_ITERATIONS)
    with pytest.raises(ValueError):  # noqa: PT011
        other.final(change(proof))


def test_a_proof_of_another_exchange_is_refused() -> None:
    client, other = Client("user", PASSWORD), server()
    proof = client.final(other.first(client.first()), MIN_ITERATIONS)
    later = server()
    later.first(client.first())
    with pytest.raises(ValueError, match="another exchange"):
        later.final(proof)


def test_nonces_are_new() -> None:
    assert len({Client("user", PASSWORD).first() for _ in range(100)}) == 100
    assert len({server().first("n,,n=a,r=x") for _ in range(100)}) == 100
