"""`add_trained_text`: opens the encoder of the column of text that a recipe trains."""

from __future__ import annotations

import numpy as np

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import Config
from dist_gat.data.column_layout import trainable_text
from dist_gat.graph.made_from import recorded_encoder
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.inputs.trained_text import TrainedText
from dist_gat.nn.recommender import Recommender
from dist_gat.text.text_tower import open_tower

TEXT_STREAM = 2


def add_trained_text(model: Recommender, config: Config, prepared: PreparedGraph) -> None:
    """Where `model.text` is set, give the model the encoder as `prepare` knew it; initial values depend on the seed.

    Raises `ConfigError` where the extra `text` is missing, or the encoder's files are gone or have changed.
    """
    if config.model.text is None:
        return
    column = trainable_text(prepared.layouts)
    assert column is not None, "`open_made` refuses a folder without"
    (source,) = [one for one in config.data.node_columns[column.node_type] if one.name == column.vector.name]
    encoder = source.config.text_encoder
    digest = recorded_encoder(prepared, config.data, encoder.encoder)
    weight = model.table.weight
    tower = open_tower(
        encoder.model_copy(update={"device": weight.device.type}), config.model.text, digest,
        int(make_key(config.seed, Purpose.WEIGHTS, TEXT_STREAM) >> np.uint64(1)), weight.dtype,
    )  # fmt: skip
    model.dense.text = TrainedText(column, tower, encoder.encoder, digest)
