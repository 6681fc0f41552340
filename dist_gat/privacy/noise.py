"""Gaussian noise that nobody can guess without the key, as a pure function of (key, step, row).

The bits are AES-256 in counter mode, so any rank computes the rows that it owns, in any order, and a resumed run adds
the same noise again. Two 64-bit words give two normals (Box and Muller 1958) in float64; the tail ends at 8.5 standard
deviations, beyond which 2e-17 of a normal lie. Finite numbers are not real numbers: see "What is assumed" in
docs/privacy.md.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numba import njit

from dist_gat.base.extra import missing
from dist_gat.kernels.threads import cut, in_threads

KEY_BYTES = 32
BLOCK_BYTES = 16  # of AES; two words, which give two normals
ROWS_AT_ONCE = 1 << 12


def derived_key(secret: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose."""
    return hashlib.blake2b(purpose.encode(), key=secret, digest_size=KEY_BYTES).digest()


def derived_seed(secret: bytes, purpose: str) -> int:
    """The same as a seed of `dist_gat.base.random`."""
    return int.from_bytes(derived_key(secret, purpose)[:8], "little") >> 1


def normal_noise(key: bytes, step: int, first_row: int, num_rows: int, size: int) -> np.ndarray:
    """float64 [num_rows, size] from N(0, 1); row j belongs to the number `first_row + j`, whoever computes it."""
    blocks = (size + 1) // 2
    out = np.empty((num_rows, size))

    def fill(rows: slice) -> None:
        words = _words(key, step, (first_row + rows.start) * blocks, (rows.stop - rows.start) * blocks)
        _fill_normal(words.reshape(rows.stop - rows.start, 2 * blocks), out[rows])

    in_threads(fill, cut(num_rows, ROWS_AT_ONCE))
    return out


def _words(key: bytes, step: int, first_block: int, num_blocks: int) -> np.ndarray:
    """uint64 [2 num_blocks]: the key stream of a step from some block on."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        raise missing("cryptography", "privacy", "privacy") from None
    start = step.to_bytes(8, "big") + first_block.to_bytes(8, "big")
    stream = Cipher(algorithms.AES(key), modes.CTR(start)).encryptor()
    return np.frombuffer(stream.update(bytes(num_blocks * BLOCK_BYTES)), dtype="<u8")


@njit(nogil=True, cache=True)
def _fill_normal(words, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for column in range(0, out.shape[1], 2):
            # in (0, 1], so that the logarithm is finite
            share = (np.float64(words[row, column] >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)
            turn = np.float64(words[row, column + 1] >> np.uint64(11)) * (1.0 / 9007199254740992.0)
            radius, angle = math.sqrt(-2.0 * math.log(share)), 2.0 * math.pi * turn
            out[row, column] = radius * math.cos(angle)
            if column + 1 < out.shape[1]:
                out[row, column + 1] = radius * math.sin(angle)
