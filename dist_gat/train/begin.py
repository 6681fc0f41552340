"""What a run begins with: the weights of another one, an adapter, and what of all this is trained."""

from __future__ import annotations

import json

from dist_gat.checkpoints.checkpoint_store import CheckpointStore
from dist_gat.config.sections import Config
from dist_gat.exchange.fail_together import share_text, together
from dist_gat.exchange.worker import Worker
from dist_gat.nn.adapters import add_adapter
from dist_gat.nn.add_text import add_trained_text
from dist_gat.nn.frozen import freeze
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.train.adapter_files import load_adapter
from dist_gat.train.init_from import Loaded, load_base, require_whole_base


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
