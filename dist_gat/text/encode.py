"""Texts and images to vectors: what the cache has comes from there, the rest is encoded, once, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.exchange.long_work import Stopped
from dist_gat.exchange.stop_requests import Request, Requests
from dist_gat.text.content_hashes import KEY, hash_texts
from dist_gat.text.model_files import find_model, fingerprint
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.vector_cache import VectorCache

CHUNK_TEXTS = 1 << 14  # that are tokenised at once
CHUNK_CHARACTERS = 1 << 24
REPORT_S = 2.0
SHOWN = 60


class Encoder(Protocol):
    """size: the length of the vectors."""

    size: int

    def encode(self, contents: Sequence[Any], /) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of numbers of contents, int64 [b], and their vectors, float32 [b, D]: all, in any order."""


def encode_texts(
    texts: pl.Series, config: TextEncoderConfig, cache: Path, progress: Progress = be_silent,
    requests: Requests | None = None, make: Callable[[tuple[int, int]], np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """The vector of each text, float32 [N, D]; NaN where there is none: a null, or a text of blanks alone.

    cache: a folder, of any encoders. Texts that it has are not encoded again, and then the model is not opened. make:
    gives the array of a shape that the vectors are written to, for example on disk; by default one in memory. Memory
    beside it: the texts, 24 bytes for each vector of the encoder in the cache, and a chunk of texts.

    Raises `DataError` for a column without text and for vectors that are not finite, `ConfigError` for an encoder that
    can't be opened, `Stopped` after a request to stop. Vectors that were made until then, or until Ctrl-C, are kept.
    """
    if texts.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise DataError(f"column {texts.name!r} has {texts.dtype}, expected text; name a column of text")
    texts = texts.cast(pl.String)
    has_text = texts.str.contains(r"\S").fill_null(False)
    model = find_model(config.encoder)
    opened = None if model else TextEncoder(config.encoder, config)  # which fetches it
    model = model or find_model(config.encoder)
    made_by = {
        "encoder": config.encoder,
        "fingerprint": fingerprint(model) if model else config.encoder,
        "max_tokens": config.max_tokens,
        "prompt": config.prompt,
    }
    said = texts.filter(has_text)
    return encode_all(
        said, hash_texts(said), has_text.arg_true().to_numpy(), len(texts),
        lambda: opened or TextEncoder(model or config.encoder, config),
        VectorCache(cache, made_by, config.store, progress), "texts", progress, requests or Requests(), make or empty,
    )  # fmt: skip


def empty(shape: tuple[int, int]) -> np.ndarray:
    """In memory."""
    return np.empty(shape, np.float32)


def encode_all(
    contents: pl.Series, keys: pl.DataFrame, rows: np.ndarray, num_rows: int, open_encoder: Callable[[], Encoder],
    cache: VectorCache, what: str, progress: Progress, requests: Requests,
    make: Callable[[tuple[int, int]], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """float32 [num_rows, D]: at `rows` the vectors of `contents`, whose hashes are `keys`; NaN elsewhere."""
    numbered = cache.locate(keys.with_row_index("number"))
    missing = numbered.filter(pl.col("shard").is_null()).unique(KEY, keep="first", maintain_order=True)
    encoder = None
    if len(missing):
        known = len(keys) - int(numbered["shard"].null_count())
        progress(f"encoding {len(missing):,} different {what}; {known:,} of {len(keys):,} are in the cache")
        encoder = open_encoder()
        _fill(cache, contents, missing, encoder, what, progress, requests)
    size = cache.size or (encoder or open_encoder()).size
    out_ND = make((num_rows, size))
    absent = np.ones(num_rows, bool)
    absent[rows] = False
    out_ND[absent] = np.nan
    cache.read(keys, out_ND, rows)
    return out_ND


def _fill(
    cache: VectorCache, contents: pl.Series, missing: pl.DataFrame, encoder: Encoder, what: str, progress: Progress,
    requests: Requests,
) -> None:  # fmt: skip
    """Encode what is missing: each content once."""
    hashes_M2 = missing.select(KEY).to_numpy()
    numbers_M = missing["number"].to_numpy()
    started = told = time.monotonic()
    done = 0
    try:
        for chunk in _chunks(contents, numbers_M):
            some = contents.gather(numbers_M[chunk]).to_list()
            for batch, vectors_bD in encoder.encode(some):
                if not _fits(vectors_bD, cache.store):
                    raise DataError(
                        f"the encoder's vectors of {what} are not finite as {cache.store.name}, for example of "
                        f"{str(some[batch[0]])[:SHOWN]!r}; store float32, or take another encoder"
                    )
                cache.add(hashes_M2[chunk][batch], vectors_bD)
                done += len(batch)
                now = time.monotonic()
                if now - told >= REPORT_S:
                    told, rate = now, done / (now - started)
                    left = (len(numbers_M) - done) / rate
                    progress(
                        f"encoding {what}: {done:,} of {len(numbers_M):,}, {rate:,.0f} a second, {left:,.0f} s left"
                    )
                if requests.poll() == Request.STOP:
                    raise Stopped
    finally:
        cache.flush()


def _fits(vectors_bD: np.ndarray, store: np.dtype) -> bool:
    """Whether all numbers are finite in the type that they are kept in."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(vectors_bD.astype(store)).all())


def _chunks(contents: pl.Series, numbers_M: np.ndarray) -> Iterator[slice]:
    """Of at most `CHUNK_TEXTS`, and of fewer where they are long."""
    lengths_M = contents.gather(numbers_M).str.len_bytes().to_numpy()
    ends_M = np.cumsum(lengths_M, dtype=np.int64)
    start = 0
    while start < len(numbers_M):
        before = int(ends_M[start - 1]) if start else 0
        stop = int(np.searchsorted(ends_M, before + CHUNK_CHARACTERS, side="right"))
        stop = min(max(stop, start + 1), start + CHUNK_TEXTS)
        yield slice(start, stop)
        start = stop
