"""``fsmux token new``."""

from __future__ import annotations

from fsmux.auth import Keys, make_token


def new(user: str | None) -> int:
    """Print a token, alone on stdout; with a user's name, the key to store on the server as a second line."""
    token = make_token()
    key = None if user is None else Keys.from_token(user, token)  # before anything is printed: the name may be refused
    print(token)
    if key is not None:
        print(key)
    return 0
