"""``fsmux token new``."""

from __future__ import annotations

from fsmux.auth import Keys, make_token


def new(user: str | None) -> int:
    """Print a token, alone on stdout; with a user's name, the key to store on the server as a second line."""
    token = make_token()
    print(token)
    if user is not None:
        print(Keys.from_token(user, token))
    return 0
