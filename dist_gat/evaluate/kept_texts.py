"""The kept vectors of a column of text whose encoder is trained: each rank has those of its own nodes, in memory, in
place of what `prepare` wrote. Other ranks ask for them as for any column.

Batches are cut inside parts, so bits don't depend on the number of ranks. Shape legend: n nodes of a part, D length of
a vector.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.long_work import Steps, padded
from dist_gat.nn.inputs.trained_text import TrainedText
from dist_gat.sampling.graph_store import GraphStore

# part → float32 [n, D] of its nodes of the type, as they are stored; NaN where there is no text
TextVectors = Mapping[int, np.ndarray]


def kept_vectors(text: TrainedText, store: GraphStore) -> TextVectors:
    """A copy of those of this rank's nodes."""
    column = text.column
    return {
        number: store.prepared.parts[number].features[column.node_type][:, column.vector.slice].copy()
        for number in store.own_parts
    }


def encode_own_texts(text: TrainedText, store: GraphStore, channel: Channel, steps: Steps) -> TextVectors:
    """Those that the present A and B make of this rank's texts. Collective. Raises `Stopped`."""
    found, column = dict(kept_vectors(text, store)), text.column
    lengths = {}
    batches: list[tuple[int, np.ndarray]] = []
    for number in store.own_parts:
        rows = store.prepared.parts[number].features[column.node_type]
        lengths[number] = column.lengths_of(rows)
        of_part = text.tower.batches(lengths[number])
        batches += [(number, some) for some in of_part if lengths[number][some[0]]]
    batches = padded(batches, (store.own_parts[0], np.zeros(0, np.int64)), channel)
    for number, some in steps(f"encoding the texts of {column.node_type}s", batches, len(batches)):
        if len(some):
            rows = store.prepared.parts[number].features[column.node_type][some]
            found[number][some] = text.stored(column.tokens_of(rows)[:, : lengths[number][some[0]]])
    return found


def keep_vectors(text: TrainedText, store: GraphStore, vectors: TextVectors) -> None:
    """Let this rank have these, and tell them to whoever asks."""
    for number, of_part in vectors.items():
        store.prepared.parts[number].replace_features(text.column.node_type, text.column.vector.slice, of_part)


def staleness(old: TextVectors, new: TextVectors, channel: Channel) -> float:
    """The mean of 1 - cos(old, new) over all texts. Collective."""
    total, count = 0.0, 0
    for number, of_part in old.items():
        has_text = ~np.isnan(of_part[:, 0])
        before, after = (side[has_text].astype(np.float64) for side in (of_part, new[number]))
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        total += float((1 - (before * after).sum(axis=1) / np.where(norms == 0, 1, norms)).sum())
        count += len(before)
    sums = channel.sum(torch.tensor([total, count], dtype=torch.float64))
    return float(sums[0]) / max(float(sums[1]), 1.0)


def use_present_vectors(text: TrainedText | None, store: GraphStore, channel: Channel, steps: Steps) -> None:
    """Before inference: make the vectors of this rank's texts anew, where an encoder is trained. Collective. Raises
    `Stopped`."""
    if text is not None:
        keep_vectors(text, store, encode_own_texts(text, store, channel, steps))
