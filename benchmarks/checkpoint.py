"""What a checkpoint costs a run: `python -m benchmarks.checkpoint configs/gowalla.yaml data.path=FOLDER`.

Blocks of steps without and with a checkpoint at their start, in turn, in one run on local workers. The median of
the differences within pairs is the time that training loses to one checkpoint: the copy of the state, and the
processors and memory bandwidth that writing takes away in the background.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

from dist_gat.config.files import load_config
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import Worker
from dist_gat.launcher.launch import run_job
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

BLOCK = 11
PAIRS = 7


def measure(config: Config, worker: Worker) -> dict[str, Any]:
    """Seconds of each block, and the seconds that the loop itself stood still for a checkpoint."""
    trainer = Trainer(config, worker)
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    stalls = []
    for number, batch in enumerate(trainer.batches(StepRange(0, 0, BLOCK * (2 * PAIRS + 1)))):
        block, place = divmod(number, BLOCK)
        if place == 0:
            trainer.writer.wait()
            worker.control.barrier()
            started = time.perf_counter()
            if block and block % 2 == 0:
                trainer.save()
                stalls.append(time.perf_counter() - started)
        trainer.train_step(batch, at_end=False)
        if place == BLOCK - 1 and block > 0:
            trainer.writer.wait()
            seconds["without" if block % 2 else "with"].append(time.perf_counter() - started)
    trainer.log.close()
    size = trainer.model.table.weight.numel() * 4 * 3
    return {"blocks": seconds, "stalls": stalls, "rank_bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*arguments.overrides, "launch.launcher=local", f"run={folder}", "checkpoint.every_minutes=null"]
        result = run_job(measure, load_config(arguments.config, overrides), quiet=True)
    median = {kind: statistics.median(values) for kind, values in result["blocks"].items()}
    pairs = zip(result["blocks"]["without"], result["blocks"]["with"], strict=True)
    losses = [with_one - without for without, with_one in pairs]
    cost = statistics.median(losses)
    print(f"{BLOCK} steps: {median['without']:.2f} s without, {median['with']:.2f} s with a checkpoint of")
    differences = ", ".join(f"{loss:.2f}" for loss in losses)
    print(f"{result['rank_bytes'] / 1e6:.0f} MB a rank; differences in turn: {differences}")
    stall = statistics.median(result["stalls"])
    print(f"a checkpoint costs {cost:.2f} s, of which the loop stood still {stall:.2f} s;")
    print(f"one a minute costs {cost / 60:.1%} of throughput")


if __name__ == "__main__":
    main()
