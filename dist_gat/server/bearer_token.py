"""The token that requests must carry as soon as the server is reached from other machines."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from dist_gat.base.errors import ConfigError

FEWEST_CHARACTERS = 16
HOW_TO_MAKE = "write one with `python -c 'import secrets; print(secrets.token_urlsafe(32))' > token.txt`"
SCHEME = "bearer"


def read_token(path: Path) -> str:
    """The only line of a file. Raises `ConfigError`."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as err:
        raise ConfigError(f"--token-file {path}: can't be read: {err}; {HOW_TO_MAKE}") from None
    if len(token) < FEWEST_CHARACTERS or not token.isascii() or len(token.split()) != 1:
        raise ConfigError(
            f"--token-file {path}: expected one line of at least {FEWEST_CHARACTERS} ASCII characters without spaces; "
            f"{HOW_TO_MAKE}"
        )
    return token


def carries_token(authorization: str | None, token: str) -> bool:
    """Whether an Authorization header has the token, in a time that doesn't depend on how much of it is right."""
    scheme, _, given = (authorization or "").partition(" ")
    digests = [hashlib.sha256(text.strip().encode()).digest() for text in (given, token)]
    return hmac.compare_digest(*digests) and scheme.lower() == SCHEME
