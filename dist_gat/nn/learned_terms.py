"""What attention has learned of edges, for people: the curves and numbers of `EdgeTerms`, averaged over heads.

Shape legend: n knots of a curve, K edge types, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dist_gat.nn.edge_terms import KNOTS, EdgeTerms
from dist_gat.nn.encoder import Encoder


class LearnedCurve(NamedTuple):
    """What a term multiplies attention with. layer: from 1. edge_type: its name.

    knots: float64 [n], of a weight, or its logarithm, in deviations from its mean, of an age log2(1 + seconds), of a
    rank log2(1 + newer edges). factors: float64 [n], as shares of the largest; NaN where training had no edge.
    """

    term: str
    layer: int
    edge_type: str
    knots: np.ndarray
    factors: np.ndarray


def learned_curves(encoder: Encoder) -> list[LearnedCurve]:
    """Those of weight, age and rank, as far as the layers have them and training had an edge."""
    found = []
    for layer, terms in layers_with_terms(encoder):
        for term, table in terms.curves.items():
            knots = KNOTS[term]
            of_kinds_KnH = table.detach().double().cpu().numpy().reshape(-1, knots.number, table.shape[1])
            for name, values_nH in zip(terms.kinds.names, of_kinds_KnH, strict=True):
                # all start at 0, and what no edge came near has stayed there
                is_learned = (values_nH != 0).any(axis=1)
                if is_learned.any():
                    logits = np.where(is_learned, values_nH.mean(axis=1), np.nan)
                    at = knots.first + knots.step * np.arange(knots.number)
                    found.append(LearnedCurve(term, layer, name, at, np.exp(logits - np.nanmax(logits))))
    return found


def learned_numbers(encoder: Encoder) -> dict[str, float]:
    """What is added to the logit along each edge type, and the multiple of the degree: by TensorBoard tag."""
    found = {}
    for layer, terms in layers_with_terms(encoder):
        if terms.relation_KH is not None:
            for name, value in zip(terms.kinds.names, terms.relation_KH.detach().mean(dim=1).tolist(), strict=True):
                found[f"attention_terms/relation_layer_{layer}/{name}"] = value
        if terms.degree_H is not None:
            found[f"attention_terms/degree_layer_{layer}"] = float(terms.degree_H.detach().mean())
    return found


def layers_with_terms(encoder: Encoder) -> Iterator[tuple[int, EdgeTerms]]:
    """Each layer whose attention reads edges, by its number from 1."""
    for layer, module in enumerate(encoder.layers, start=1):
        terms = getattr(module.scoring, "terms", None)
        if isinstance(terms, EdgeTerms):
            yield layer, terms
