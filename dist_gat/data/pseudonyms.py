"""External IDs as keyed hashes, and the way back for who has the key.

A pseudonym is HMAC-SHA256 of the node type and the ID, 128 bits as hex; without the key nobody can try IDs. Beside it
stands the ID itself, sealed with AES-SIV (RFC 5297) and padded, so that whoever has the key needs no other table.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dist_gat.base.errors import ConfigError
from dist_gat.base.extra import missing
from dist_gat.base.secret_file import SECRET_BYTES, read_secret, write_secret

LETTERS = 32  # of a pseudonym
BLOCK = 32  # sealed IDs show how many of these bytes they take
SEALED = "sealed"


@dataclass(frozen=True)
class Pseudonyms:
    """secret: of the key file."""

    secret: bytes

    @property
    def fingerprint(self) -> str:
        """What a manifest has to tell one key from another."""
        return self._derived("fingerprint").hex()[:16]

    def pseudonym(self, kind: str, external_id: object) -> str:
        """kind: the type of the node."""
        text = f"{kind}\0{external_id}".encode()
        return hmac.new(self._derived("pseudonyms"), text, hashlib.sha256).hexdigest()[:LETTERS]

    def seal(self, kind: str, external_id: object) -> bytes:
        text = str(external_id).encode()
        padded = text + b"\x80"
        return bytes(self._cipher().encrypt(padded + bytes(-len(padded) % BLOCK), [kind.encode()]))

    def unseal(self, kind: str, sealed: bytes) -> str:
        padded: bytes = self._cipher().decrypt(sealed, [kind.encode()])
        return padded.rstrip(b"\0")[:-1].decode()

    def hidden(self, kind: str, ids: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Pseudonyms, and sealed IDs."""
        texts = ids.cast(pl.String).to_list()
        return (
            pl.Series([self.pseudonym(kind, text) for text in texts], dtype=pl.String),
            pl.Series([self.seal(kind, text) for text in texts], dtype=pl.Binary),
        )

    def _derived(self, purpose: str) -> bytes:
        return hashlib.blake2b(purpose.encode(), key=self.secret, digest_size=64).digest()

    def _cipher(self) -> Any:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        except ImportError:
            raise missing("cryptography", "pseudonymisation", "privacy") from None
        return AESSIV(self._derived("sealed IDs"))


def open_pseudonyms(key_file: Path, progress: Callable[[str], None] | None = None) -> Pseudonyms:
    """progress: given where a file that is not there is written, with a new key. Raises `StorageError`."""
    if progress is not None and not key_file.exists():
        write_secret(key_file, secrets.token_bytes(SECRET_BYTES))
        progress(f"a new key is in {key_file}: keep it apart from the data, and keep it")
    return Pseudonyms(read_secret(key_file, "give the key file that `dist-gat prepare --pseudonymize` wrote"))


def require_key(manifest: dict[str, Any], pseudonyms: Pseudonyms, where: str) -> None:
    """Raise `ConfigError` where IDs were hidden with another key, or not at all. manifest: of data or a model."""
    found = manifest.get("pseudonyms")
    if found != pseudonyms.fingerprint:
        raise ConfigError(
            f"{where}: its IDs are {'as they were in the tables' if found is None else 'of another key'}; "
            f"{'leave the key out' if found is None else 'give the key that they were made with'}"
        )
