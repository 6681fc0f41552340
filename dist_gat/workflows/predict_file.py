"""`predict_file`: a file of pairs in, a file with predictions out, in bounded memory and over workers.

This process reads and writes. The batches go round the workers, and come back in their order.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import torch

from dist_gat.base.errors import ClusterError, DistGatError, StorageError
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.config.sections import LaunchConfig
from dist_gat.launcher.host import cores, end_with_parent, threads_per_worker
from dist_gat.launcher.preload import start_nursery
from dist_gat.launcher.stop_signals import on_stop_signals
from dist_gat.serve.pairs_file import PairsFile, open_pairs, write_predictions
from dist_gat.serve.predict import PairPredictor, Unknown, open_predictor
from dist_gat.serve.saved_model import SavedModel

SAY_EVERY_S = 5.0
# of a file of pairs: starting workers takes seconds, and more of them wait for the reading and the writing
LARGE_BYTES, MOST_BY_DEFAULT = 256 << 20, 4
Read = Iterator[tuple[pa.RecordBatch, float]]
Predicted = Iterator[tuple[pa.RecordBatch, float, pl.DataFrame]]


def predict_file(
    model: SavedModel, pairs: Path, output: Path, unknown: Unknown = "error", workers: int | None = None,
    progress: Progress = be_silent,
) -> dict[str, Any]:  # fmt: skip
    """Write the rows of `pairs`, in their order, with a column `prediction` more to `output`; both Parquet or CSV.

    The file is the same, bit for bit, for any number of workers: by default 1, and more for a large file. Returns
    `output`, `rows`, `unknown`, the number of rows without a prediction, `workers` and `seconds`. Raises what
    `PairPredictor.predict` and `open_pairs` raise, `StorageError` where the output can't be written, `ClusterError`
    where a worker is lost, `KeyboardInterrupt` after a signal to stop. What stood under the name `output` then stays.
    """
    started = time.perf_counter()
    predictor = open_predictor(model)
    source = open_pairs(pairs, predictor.columns)
    if workers is None:
        workers = min(cores(), MOST_BY_DEFAULT) if pairs.stat().st_size > LARGE_BYTES else 1
    stop = threading.Event()
    rows = without = 0
    said = started
    try:
        with (
            on_stop_signals(stop.set),
            write_predictions(output, source.schema, predictor.columns.outputs) as write,
            _predicting(model, predictor, source, unknown, workers) as predict,
        ):
            for batch, share, predictions in predict(source.batches()):
                if stop.is_set():
                    raise KeyboardInterrupt
                write(batch, predictions)
                rows, without = rows + batch.num_rows, without + predictions.to_series().null_count()
                if time.perf_counter() - said > SAY_EVERY_S:
                    said = time.perf_counter()
                    progress(_told(rows, share, said - started))
    except DistGatError:
        raise
    except OSError as err:
        raise StorageError(f"{output}: can't be written: {err}; choose another place with --output") from None
    seconds = time.perf_counter() - started
    return {"output": str(output), "rows": rows, "unknown": without, "workers": workers, "seconds": seconds}


def _told(rows: int, share: float, seconds: float) -> str:
    left = seconds * (1 - share) / share
    return f"{rows:,} pairs, {share:.0%}; {rows / seconds:,.0f} pairs/s, some {left:,.0f} s left"


@contextmanager
def _predicting(
    model: SavedModel, predictor: PairPredictor, source: PairsFile, unknown: Unknown, workers: int
) -> Iterator[Callable[[Read], Predicted]]:
    """Yield what predicts batches: in this process, or in some of its own that end with the block."""
    where, inputs = str(source.path), predictor.columns.inputs
    if workers == 1:

        def here(batches: Read) -> Predicted:
            row = source.first_row
            for batch, share in batches:
                yield batch, share, predictor.predict(given(batch, inputs), where, row, unknown)
                row += batch.num_rows

        yield here
        return
    launch = LaunchConfig(launcher="local", num_workers=workers)
    start_nursery(launch, "dist_gat.serve.predict")
    context = multiprocessing.get_context("forkserver")
    settings = (model, where, unknown, threads_per_worker(launch))
    ends = [context.Pipe() for _ in range(workers)]
    processes = [context.Process(target=_worker_process, args=(there, *settings), daemon=True) for _, there in ends]
    for process, (_, there) in zip(processes, ends, strict=True):
        process.start()
        there.close()
    try:
        yield lambda batches: _over_workers([here for here, _ in ends], batches, inputs, source.first_row)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _over_workers(pipes: list[Connection], batches: Read, inputs: Sequence[str], row: int) -> Predicted:
    """One batch at a time for each worker, in turn: a worker that sends always finds this process reading."""
    waiting: deque[tuple[Connection, pa.RecordBatch, float]] = deque()
    for number, (batch, share) in enumerate(batches):
        pipe = pipes[number % len(pipes)]
        done = _received(*waiting.popleft()) if len(waiting) == len(pipes) else None
        # a worker that failed has sent its error before it closed the pipe
        with suppress(ConnectionError):
            pipe.send((given(batch, inputs), row))
        row += batch.num_rows
        waiting.append((pipe, batch, share))
        if done is not None:
            yield done
    for one in waiting:
        yield _received(*one)


def _received(pipe: Connection, batch: pa.RecordBatch, share: float) -> tuple[pa.RecordBatch, float, pl.DataFrame]:
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionError):
        raise ClusterError(
            "a worker of predict ended without a word, perhaps because the host ran out of memory; take fewer with "
            "--workers"
        ) from None
    if isinstance(answer, DistGatError):
        raise answer
    return batch, share, answer


def given(batch: pa.RecordBatch, inputs: Sequence[str]) -> pl.DataFrame:
    """What a predictor reads of a batch."""
    return pl.DataFrame({name: pl.Series(name, batch.column(name)) for name in inputs})


def _worker_process(pipe: Connection, model: SavedModel, where: str, unknown: Unknown, threads: int) -> None:
    # a terminal's Ctrl-C goes to the whole process group: the first process alone decides what follows
    os.setpgrp()
    end_with_parent()
    torch.set_num_threads(threads)
    try:
        predictor = open_predictor(model)
        while True:
            pairs, row = pipe.recv()
            pipe.send(predictor.predict(pairs, where, row, unknown))
    except DistGatError as err:
        pipe.send(err)
