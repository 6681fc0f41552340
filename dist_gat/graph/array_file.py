"""`ArrayFile`: an npy array that is written piece by piece, whose length is known at the end."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

# as long as that of any array of one or two dimensions, whatever its length
HEADER_BYTES = 128


class ArrayFile:
    """Opened for writing rows of one type and shape."""

    def __init__(self, path: Path, dtype: np.dtype | type, row_shape: tuple[int, ...] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dtype, self.row_shape, self.count = np.dtype(dtype), row_shape, 0
        self.file = path.open("wb")
        self.file.write(b"\0" * HEADER_BYTES)

    def append(self, rows: np.ndarray) -> None:
        assert rows.shape[1:] == self.row_shape, (rows.shape, self.row_shape)
        self.count += len(rows)
        np.ascontiguousarray(rows, self.dtype).tofile(self.file)

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.seek(0)
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self.file, described)
        assert self.file.tell() == HEADER_BYTES, "numpy pads the header to this length"
        self.file.close()
