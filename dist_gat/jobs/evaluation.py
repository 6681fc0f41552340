"""Evaluation of a trained run as a job: layer-wise inference and exact ranking, on any number of workers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dist_gat.checkpoints.weight_files import load_rows, load_weights, part_file, part_rows
from dist_gat.config.sections import Config
from dist_gat.evaluate.beyond_accuracy import beyond_accuracy
from dist_gat.evaluate.full_ranking import judge, ranking_metrics
from dist_gat.evaluate.inference import infer_representations
from dist_gat.evaluate.kept_texts import use_present_vectors
from dist_gat.evaluate.pair_slices import pair_slices
from dist_gat.evaluate.slices import slice_metrics
from dist_gat.evaluate.split_metrics import cold_metrics
from dist_gat.evaluate.spread import pair_spread, ranking_spread
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.fail_together import together
from dist_gat.exchange.long_work import Stopped
from dist_gat.exchange.worker import Worker
from dist_gat.explain.trained_run import require_same_data
from dist_gat.filters.blend import Blend
from dist_gat.filters.linear_filter import LinearFilter
from dist_gat.graph.own_parts import open_own_parts, own_parts_of
from dist_gat.graph.part import SPLITS
from dist_gat.nn.add_text import add_trained_text
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.recommender import Recommender, build_recommender, untimed_type
from dist_gat.sampling.graph_store import GraphStore, open_store
from dist_gat.serve.saved_model import SavedModel, open_model
from dist_gat.tasks.build_task import build_task, single_tasks
from dist_gat.tasks.pair_task import PairTask, calibrated
from dist_gat.tasks.ranking import RankingTask
from dist_gat.tasks.together import TogetherTask
from dist_gat.train.event_log import EventLog


def evaluate_worker(config: Config, worker: Worker) -> dict[str, Any]:
    """Metrics of the saved model on the valid and test splits, and of slices of them. Collective.

    `{"valid": {...}, "test": {...}, "slices": {"valid": {...}, "test": {...}}, "spread": {...}}`, without the splits
    that are empty. `spread` has the standard errors of the metrics, from users to users. A task that predicts pairs
    adds `details`: see `Likelihood.details`. `{"stopped": True}` where it was asked to stop.
    """
    with EventLog(config.run_folder, worker.rank) as log:
        try:
            return evaluate_saved(config, replace(worker, tell=log.work))
        except Stopped:
            return {"stopped": True}


def evaluate_saved(config: Config, worker: Worker) -> dict[str, Any]:
    """See `evaluate_worker`. Raises `Stopped`."""
    prepared = open_own_parts(config, worker.control)
    own = own_parts_of(prepared.ranges.num_parts, worker.control)
    with together(worker.control, f"{config.model_name}: can't be read"):
        saved = open_model(config.model_name, parts=own, cache=config.launch.cache_folder)
    require_same_data(saved, prepared)
    store = open_store(prepared, worker.sampling, config.sampling.access)
    num_layers = len(config.sampling.fanouts)
    task = build_task(config, prepared)
    model = build_recommender(
        config.model, num_layers, prepared.layouts, store.ownership, worker.rows, config.seed,
        build_head=task.build_head, kinds=prepared_kinds(prepared, config.sampling),
        untimed=untimed_type(config.sampling, task.relation),
    )  # fmt: skip
    add_trained_text(model, config, prepared)
    load_weights(saved.folder, model, store)
    use_present_vectors(model.dense.text, store, worker.control, worker.steps)
    representation_OR = infer_representations(model, store, config.evaluate.edge_chunk, worker.steps)
    of_tasks = {
        name: evaluate_pairs(single, model, representation_OR, store, worker, saved.manifest["pairs"][name])
        if isinstance(single, PairTask)
        else evaluate_ranking(single, model, representation_OR, store, worker, saved)
        for name, single in single_tasks(task).items()
    }
    if not isinstance(task, TogetherTask):
        (result,) = of_tasks.values()
        return result
    merged: dict[str, Any] = {"tasks": of_tasks, "spread": {}}
    for split in SPLITS[1:]:
        if metrics := _with_names({name: found.get(split, {}) for name, found in of_tasks.items()}):
            merged[split] = metrics
            merged["spread"][split] = _with_names(
                {name: found["spread"].get(split, {}) for name, found in of_tasks.items()}
            )
    return merged


def _with_names(of_tasks: dict[str, dict[str, float]]) -> dict[str, float]:
    """`TASK/METRIC` of the metrics of each task."""
    return {f"{name}/{metric}": value for name, found in of_tasks.items() for metric, value in found.items()}


def evaluate_ranking(
    task: RankingTask, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker,
    saved: SavedModel,
) -> dict[str, Any]:  # fmt: skip
    """Metrics of full rankings with the saved blend, by split, and slices of them. Collective."""
    prepared, relation, evaluate = store.prepared, task.relation, task.evaluation
    rows_OR = task.rows(model, representation_OR, store.ownership.own_nodes, store)
    own_OR = rows_OR[:, : model.encoder.representation_size]
    blend = load_blend(saved, model, store, worker)
    result: dict[str, Any] = {"slices": {}, "spread": {}}
    for split in SPLITS[1:]:
        if prepared.num_pairs(relation, split):
            sample = sample_users(
                prepared, relation, split, store.own_parts, evaluate.num_users, task.seed, worker.control
            )
            rank = partial(blend.rank, rows_OR, store, worker, relation, split, evaluate, sample.users)
            rankings = rank()
            metrics = ranking_metrics(rankings, prepared, worker.control, relation, split, evaluate.ks)
            judged = judge(rankings, prepared, relation, split)
            spread = ranking_spread(judged, store.ranges.num_parts, worker.control, evaluate.ks)
            apart, spread_apart = cold_metrics(
                rankings, rank, prepared, relation, split, store.own_parts, worker.control, evaluate.ks
            )
            result[split] = metrics | apart | sample.counts
            result["spread"][split] = spread | spread_apart
            result["slices"][split] = {
                **slice_metrics(judged, store, worker.control, relation, split, evaluate.ks),
                "beyond_accuracy": beyond_accuracy(judged, own_OR, store, worker, relation, evaluate.ks),
            }
    return result


def evaluate_pairs(
    task: PairTask, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker,
    saved: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The same of the calibrated predictions of a task that predicts pairs, with details. Collective."""
    likelihood, valid = task.likelihood, None
    result: dict[str, Any] = {"slices": {}, "spread": {}, "details": {}}
    for split in SPLITS[1:]:
        if store.prepared.num_pairs(task.relation, split):
            found, counts = task.values(model, representation_OR, store, worker, split)
            predicted = replace(found, values=calibrated(likelihood, found.values, saved["calibration"]))
            if split == "valid":
                valid = predicted.labels, predicted.values
            result[split] = task.metrics(found, predicted.values) | counts
            result["slices"][split] = pair_slices(predicted, likelihood.metrics, store, worker.control, task.relation)
            result["spread"][split] = pair_spread(predicted, likelihood.metrics)
            result["details"][split] = likelihood.details(predicted.labels, predicted.values, valid)
    return result


def load_blend(saved: SavedModel, model: Recommender, store: GraphStore, worker: Worker) -> Blend:
    """The filters of a saved model, with their weights. Collective."""
    ranges, rows_Ok = store.ranges, torch.zeros(len(model.table.weight), saved.manifest["spectral_rank"])
    for part in store.own_parts:
        rows = part_rows(model, store, part, {"spectral": rows_Ok})["spectral"]
        load_rows(part_file(saved.folder, part), {"spectral": rows})
    linear = None
    if saved.linear_weight:
        linear = LinearFilter(saved.user_items, ranges.num_parts, ranges.num_nodes, worker.steps, store.own_parts)
    # the saved rows are weighted already
    return Blend(rows_Ok, rows_Ok[:, :0], linear, 1.0, saved.linear_weight)
