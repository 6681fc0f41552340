"""One baseline as a job, in a process of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from dist_gat.base.errors import ConfigError
from dist_gat.base.peak_memory import peak_memory, reset_peak_memory
from dist_gat.baselines.baseline import evaluate_baseline
from dist_gat.baselines.pair_baselines import evaluate_pair_baseline
from dist_gat.config.sections import Config
from dist_gat.evaluate.full_ranking import held_out_split
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import open_prepared
from dist_gat.tasks.build_task import build_task, predicted_relation
from dist_gat.tasks.pair_task import PairTask
from dist_gat.train.event_log import EventLog


def baseline_worker(name: str, config: Config, worker: Worker) -> dict[str, Any]:
    """Metrics, seconds and peak memory of a baseline, in a process of its own; or a note on why it can't run."""
    reset_peak_memory()
    with EventLog(config.run_folder, worker.rank) as log:
        return run_baseline(name, config, replace(worker, tell=log.work))


def run_baseline(name: str, config: Config, worker: Worker) -> dict[str, Any]:
    """See `baseline_worker`."""
    started = time.perf_counter()
    prepared = open_prepared(config.data.prepared, cache=config.launch.cache_folder)
    relation = predicted_relation(prepared.schema, config.task)
    try:
        split = held_out_split(prepared, relation)
        task = build_task(config, prepared)
        if isinstance(task, PairTask):
            found = {"metrics": evaluate_pair_baseline(name, task, prepared, split)}
        else:
            found = evaluate_baseline(
                name,
                prepared,
                relation,
                split,
                config.evaluate,
                config.train.metric,
                config.seed,
                worker,
                config.data.split.cold_user_history,
            )
    except ConfigError as err:
        return {"note": str(err)}
    return {**found, "seconds": time.perf_counter() - started, "peak_memory_bytes": peak_memory()}
