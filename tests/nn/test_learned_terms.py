"""Learned curves as people see them, against tables that were filled by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dist_gat.config.model_sections import ModelConfig
from dist_gat.graph.schema import Relation, Schema
from dist_gat.nn.edge_terms import KNOTS, edge_kinds
from dist_gat.nn.encoder import Encoder
from dist_gat.nn.learned_terms import layers_with_terms, learned_curves, learned_numbers

SCHEMA = Schema(
    ("user", "item"),
    (
        Relation("interacts", "user", "item", columns=("weight", "time")),
        Relation("friends", "user", "user"),
    ),
)


def encoder_with(*terms: str) -> Encoder:
    config = ModelConfig.model_validate({"embedding_size": 16, "num_heads": 2, "terms": terms})
    return Encoder(config, 2, edge_kinds(SCHEMA, {}))


def test_curves_are_shares_of_the_largest_and_end_where_training_had_no_edge() -> None:
    encoder = encoder_with("age", "rank")
    assert learned_curves(encoder) == []
    (_, _), (layer, terms) = layers_with_terms(encoder)
    first = KNOTS["age"].number  # of the second edge type
    with torch.no_grad():
        terms.curves["age"][first + 4] = torch.tensor([1.0, 3.0])
        terms.curves["age"][first + 6] = torch.tensor([0.0, 2.0])
    (curve,) = learned_curves(encoder)
    assert (curve.term, curve.layer, curve.edge_type) == ("age", layer, terms.kinds.names[1])
    assert np.flatnonzero(np.isfinite(curve.factors)).tolist() == [4, 6]
    assert curve.factors[[4, 6]] == pytest.approx([1.0, np.exp(-1)])
    assert curve.knots.tolist() == list(range(KNOTS["age"].number))


def test_numbers_of_relations_and_degrees_are_means_over_heads() -> None:
    encoder = encoder_with("relation", "degree")
    terms = next(layers_with_terms(encoder))[1]
    assert terms.relation_KH is not None
    with torch.no_grad():
        terms.relation_KH[2] = torch.tensor([1.0, 2.0])
    found = learned_numbers(encoder)
    assert found[f"attention_terms/relation_layer_1/{terms.kinds.names[2]}"] == 1.5
    assert found["attention_terms/degree_layer_2"] == 0.0
    assert len(found) == 2 * (len(terms.kinds.names) + 1)
    assert learned_numbers(encoder_with()) == {}
