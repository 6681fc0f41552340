"""`VectorCache`: vectors on disk by the content that they were made from; shards are added and never changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import StorageError
from dist_gat.base.storage import (
    MANIFEST,
    atomic_folder,
    open_array,
    read_manifest,
    remove_folder,
    save_array,
    write_manifest,
    write_text,
)
from dist_gat.text.content_hashes import KEY, as_keys

KIND, VERSION = "dist_gat vectors", 1
MADE_BY = "made_by.json"
REMEDY = "delete this folder, and its texts are encoded again"
WRITE_EVERY_S = 30.0
WRITE_BYTES = 1 << 28
READ_ROWS = 1 << 16
WHERE = ("shard", "row")


class VectorCache:
    """The vectors of one encoder as it is set: `folder/NAME`, where NAME is a digest of `made_by`.

    made_by: whatever the vectors depend on beside the content, with the encoder's `fingerprint`; and `encoder`, its
    name here, which they don't depend on.

    A shard is a folder with hashes.npy, uint64 [n, 2], vectors.npy, float32 or float16 [n, D], and their manifest. It
    is there as a whole or not at all; one whose files have other sizes or ends than its manifest says is thrown away.
    """

    def __init__(
        self, folder: Path, made_by: dict[str, Any], store: str, say: Callable[[str], None] = lambda message: None
    ) -> None:
        made_by = {**made_by, "store": store}
        # a model that has moved is still the same
        known_by = json.dumps({**made_by, "encoder": None}, sort_keys=True)
        digest = hashlib.sha256(known_by.encode()).hexdigest()[:16]
        self.folder, self.made_by, self.store = folder / digest, made_by, np.dtype(store)
        self.shards: list[np.ndarray] = []  # memory-mapped [n, D]
        self.index = as_keys(np.empty((0, 2), np.uint64)).with_columns(pl.lit(0, pl.UInt32).alias(c) for c in WHERE)
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self.written_at = time.monotonic()
        if not self.folder.exists():
            self._tell_of_change(say)
            self.folder.mkdir(parents=True)
            write_text(self.folder / MADE_BY, json.dumps(made_by, indent=1))
        for path in sorted(self.folder.glob(f"*/{MANIFEST}")):
            try:
                self._open(path.parent)
            except StorageError as err:
                say(f"{err}; done so")
                remove_folder(path.parent)

    @property
    def size(self) -> int | None:
        """Length of the vectors; None where there are none yet."""
        return self.shards[0].shape[1] if self.shards else None

    def locate(self, keys: pl.DataFrame) -> pl.DataFrame:
        """`keys`, in their order, with the columns shard and row: null where there is no vector."""
        return keys.join(self.index, on=KEY, how="left", maintain_order="left")

    def read(self, keys: pl.DataFrame, out_ND: np.ndarray, rows: np.ndarray) -> None:
        """Copy the vector of each key to its row of `out_ND`. All of them are there."""
        located = self.locate(keys).select(WHERE).to_numpy()
        assert len(located) == len(rows)
        for number, shard in enumerate(self.shards):
            mine = np.flatnonzero(located[:, 0] == number)
            for start in range(0, len(mine), READ_ROWS):
                some = mine[start : start + READ_ROWS]
                out_ND[rows[some]] = shard[located[some, 1]]

    def add(self, hashes_N2: np.ndarray, vectors_ND: np.ndarray) -> None:
        """Keep vectors; they are on disk after the next `flush`, or at most `WRITE_EVERY_S` after the last one."""
        self.waiting.append((hashes_N2, vectors_ND.astype(self.store)))
        waits = sum(vectors.nbytes for _, vectors in self.waiting)
        if waits > WRITE_BYTES or time.monotonic() - self.written_at > WRITE_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one more shard."""
        self.written_at = time.monotonic()
        if not self.waiting:
            return
        number = len(self.shards)
        while (path := self.folder / f"{number:06d}").exists():  # also by another process
            number += 1
        with atomic_folder(path) as temporary:
            for name, arrays in zip(("hashes", "vectors"), zip(*self.waiting, strict=True), strict=True):
                save_array(temporary / f"{name}.npy", np.concatenate(arrays))
            rows, size = sum(len(hashes) for hashes, _ in self.waiting), self.waiting[0][1].shape[1]
            write_manifest(temporary, KIND, VERSION, {"rows": rows, "size": size})
        self.waiting.clear()
        self._open(path)

    def _open(self, path: Path) -> None:
        found = read_manifest(path, KIND, VERSION, REMEDY)
        rows, size = (found.get(name) for name in ("rows", "size"))
        if not (isinstance(rows, int) and isinstance(size, int) and size == (self.size or size)):
            raise StorageError(f"{path / MANIFEST}: expected rows and size of vectors; {REMEDY}")
        hashes_N2 = open_array(path / "hashes.npy", ["uint64"], (rows, 2), REMEDY)
        vectors_ND = open_array(path / "vectors.npy", [self.store.name], (rows, size), REMEDY)
        new = as_keys(hashes_N2).with_columns(
            pl.lit(len(self.shards), pl.UInt32).alias("shard"), pl.int_range(rows, dtype=pl.UInt32).alias("row")
        )
        # two processes may have encoded the same
        self.index = pl.concat([self.index, new]).unique(KEY, keep="first")
        self.shards.append(vectors_ND)

    def _tell_of_change(self, say: Callable[[str], None]) -> None:
        """Say so where the encoder's name stood for other files before."""
        for path in sorted(self.folder.parent.glob(f"*/{MADE_BY}")):
            try:
                other = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if {**other, "fingerprint": ""} == {**self.made_by, "fingerprint": ""}:
                say(
                    f"encoder {self.made_by['encoder']} has other files than when {path.parent} was made: all is "
                    "encoded anew; the old vectors stay there until you delete them"
                )
