"""What a run begins with: the weights of another one, an adapter, and what of all this is trained."""

from __future__ import annotations

import json

import torch

from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.config.sections import Config
from dist_gat.exchange.fail_together import share_text, together
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.adapters import add_adapter
from dist_gat.nn.add_text import add_trained_text
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.frozen import freeze, frozen_names
from dist_gat.nn.recommender import Recommender, build_dense
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.tasks.task import Task
from dist_gat.train.adapter_files import load_adapter
from dist_gat.train.init_from import Loaded, load_base, require_whole_base


def check_frozen(config: Config, prepared: PreparedGraph, task: Task) -> None:
    """Raise `ConfigError` for a pattern of `train.freeze` that matches nothing, before workers start.

    Where a text encoder is trained, its names are known once a worker has opened it, which then refuses.
    """
    if not config.train.freeze or config.model.text is not None:
        return
    with torch.device("meta"):
        dense = build_dense(
            config.model, len(config.sampling.fanouts), prepared.layouts, task.build_head,
            prepared_kinds(prepared, config.sampling),
        )  # fmt: skip
    frozen_names([name for name, _ in dense.named_parameters()], config.train.freeze)


def begin_model(
    config: Config, model: Recommender, store: GraphStore, worker: Worker, checkpoints: CheckpointStore
) -> Loaded | None:
    """Load, freeze and adapt a new model, in place, as `config.train`, `config.model.text` and `config.model.adapter`
    say. Collective.

    A run that goes on from a checkpoint loads nothing: its checkpoint has all of it, so that the base may be gone.
    Raises `ConfigError`, `StorageError`.
    """
    train, adapter, loaded = config.train, config.model.adapter, None
    add_trained_text(model, config, store.prepared)
    # rank 0 looks, because other hosts may see the folder later
    begins = not json.loads(share_text(json.dumps(checkpoints.steps()), worker.control)[0])
    if train.init_from is not None and begins:
        loaded = load_base(train.init_from, model, store, worker.control)
        if model.dense.text is not None and any(name.startswith("text.") for name in loaded.dense):
            model.dense.text.tower.expire()
    freeze(model, train.freeze)
    if adapter is None:
        return loaded
    if loaded is not None:
        require_whole_base(loaded)
    add_adapter(model, adapter, config.seed)
    if train.adapter_from is not None and loaded is not None:
        with together(worker.control, f"{train.adapter_from}: can't be used"):
            load_adapter(train.adapter_from, model, loaded.fingerprint)
    return loaded
