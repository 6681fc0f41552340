"""A softmax, a projection and keys by relation: against a loop over destinations and relations, and plain layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_cases import attention
from test_edge_terms import KINDS, SIZE, block_of_kinds
from torch import Tensor, nn
from torch.testing import assert_close

from dist_gat.nn.attention import AttentionLayer
from dist_gat.nn.by_relation import split_block
from dist_gat.sampling.block import Block

SCORINGS = [
    {"scoring": "dot", "num_heads": 2, "terms": ["relation", "age"]},
    {"scoring": "additive", "num_heads": 2, "keys": ["relation", "category"]},
    {"scoring": "additive_v2", "num_heads": 2},
    {"scoring": "uniform", "terms": ["rank"]},
    {"scoring": "degree_dot", "keys": ["category"]},
]
each_scoring = pytest.mark.parametrize("scoring", SCORINGS, ids=lambda one: one["scoring"])


def layer_of(**settings: object) -> AttentionLayer:
    torch.manual_seed(3)
    layer = AttentionLayer(attention(residual=False, **settings), SIZE, SIZE, KINDS).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def of_relation(block: Block, slot: int) -> Block:
    """The same destinations with the edges of one slot alone, edge by edge."""
    neighbors_DF = torch.zeros_like(block.neighbors_DF)
    edges = {name: torch.zeros_like(values) for name, values in block.edges.items()}
    count_D = torch.zeros_like(block.count_D)
    for u, count in enumerate(block.count_D.tolist()):
        for f in range(count):
            if KINDS.slot[int(block.edges["kind"][u, f])] == slot:
                at = int(count_D[u])
                neighbors_DF[u, at] = block.neighbors_DF[u, f]
                for name, values in block.edges.items():
                    edges[name][u, at] = values[u, f]
                count_D[u] += 1
    return replace(block, neighbors_DF=neighbors_DF, count_D=count_D, edges=edges)


def gradients(layer: AttentionLayer, out_DO: Tensor, rows_SI: Tensor) -> list[Tensor]:
    weight_DO = torch.linspace(-1, 1, out_DO.numel(), dtype=out_DO.dtype).view_as(out_DO)
    found = torch.autograd.grad((out_DO * weight_DO).sum(), [rows_SI, *layer.parameters()], allow_unused=True)
    return [torch.zeros(()) if one is None else one for one in found]


@each_scoring
@pytest.mark.parametrize("projection", ["none", "relation"])
def test_a_softmax_a_relation_is_a_layer_a_relation(scoring: dict, projection: str) -> None:
    layer, block = layer_of(**scoring, softmax="relation", projection=projection), block_of_kinds(4)
    rows_SI = torch.randn(block.num_src, SIZE, dtype=torch.float64, requires_grad=True)
    assert layer.gate is not None
    plain = layer_of(**scoring)
    plain.load_state_dict(layer.state_dict(), strict=False)
    # the same parameters, so that gradients can be compared
    plain.scoring = layer.scoring
    expected = []
    for u in range(block.num_dst):
        logits, found = [], []
        for slot in range(3):
            one = of_relation(block, slot)
            if one.count_D[u]:
                kind = int(one.edges["kind"][u, 0])
                row = plain(rows_SI, one).rows_DO[u]
                found.append(row if layer.projection is None else layer.projection.weight_TOO[kind] @ row)
                logits.append(layer.gate.number_T[kind] + layer.gate.query_TI[kind] @ rows_SI[u])
        if found:
            expected.append(torch.einsum("k,ko->o", torch.stack(logits).softmax(0), torch.stack(found)))
        else:
            expected.append(plain(rows_SI, of_relation(block, 0)).rows_DO[u])
    expected_DO, attended = torch.stack(expected), layer(rows_SI, block)
    has_edges = block.count_D > 0
    assert_close(attended.rows_DO[has_edges], expected_DO[has_edges], rtol=1e-9, atol=1e-9)
    for one, other in zip(
        gradients(layer, attended.rows_DO[has_edges], rows_SI),
        gradients(layer, expected_DO[has_edges], rows_SI),
        strict=True,
    ):
        assert_close(one, other, rtol=1e-9, atol=1e-9)
    if scoring["scoring"] != "degree_dot":
        sums_DH = attended.alpha_DFH.sum(dim=1)[has_edges]
        assert_close(sums_DH, torch.ones_like(sums_DH))


@each_scoring
def test_a_projection_of_each_relation_keeps_one_softmax(scoring: dict) -> None:
    layer, block = layer_of(**scoring, projection="relation"), block_of_kinds(5)
    rows_SI = torch.randn(block.num_src, SIZE, dtype=torch.float64, requires_grad=True)
    plain = layer_of(**scoring)
    plain.scoring = layer.scoring
    attended, weights = layer(rows_SI, block), plain(rows_SI, block)
    assert_close(attended.alpha_DFH, weights.alpha_DFH, rtol=1e-9, atol=1e-9)
    assert layer.projection is not None
    with torch.no_grad():
        layer.projection.weight_TOO.copy_(torch.eye(SIZE))
    same = layer(rows_SI, block).rows_DO
    assert_close(same, weights.rows_DO, rtol=1e-9, atol=1e-9)
    for one, other in zip(
        gradients(plain, same, rows_SI), gradients(plain, weights.rows_DO, rows_SI), strict=True
    ):  # fmt: skip
        assert_close(one, other, rtol=1e-9, atol=1e-9)
    # one matrix for all edge types is a projection of the whole sum, apart from what the scoring adds to it
    with torch.no_grad():
        layer.projection.weight_TOO.copy_(torch.randn(SIZE, SIZE, dtype=torch.float64))
    matrix_OO, nothing_DO = layer.projection.weight_TOO[0], plain(torch.zeros_like(rows_SI), block).rows_DO
    assert_close(
        layer(rows_SI, block).rows_DO - nothing_DO, (weights.rows_DO - nothing_DO) @ matrix_OO.T, rtol=1e-9, atol=1e-9
    )


def test_splitting_and_joining_keep_each_edge() -> None:
    block = block_of_kinds(7)
    split = split_block(block, KINDS)
    values_DFH = torch.randn(*block.neighbors_DF.shape, 2) * block.mask_DF()[:, :, None]
    assert torch.equal(split.joined(split.split(values_DFH)), values_DFH)
    assert int(split.block.count_D.sum()) == int(block.count_D.sum())


def test_a_key_is_a_neighbour_with_the_vector_added() -> None:
    """In the logit alone: dot attention over rows of its own for each edge has the same weights."""
    layer, block = layer_of(scoring="dot", num_heads=2, keys=["relation", "category"]), block_of_kinds(8)
    rows_SI = torch.randn(block.num_src, SIZE, dtype=torch.float64)
    keys = layer.scoring.keys
    assert keys is not None
    kind_DF, near_DFI = block.edges["kind"], rows_SI[block.neighbors_DF]
    moved_DFI = near_DFI + keys.vector_VI[kind_DF]
    has_DF = torch.tensor(KINDS.num_categories)[kind_DF] > 0
    first_DF = torch.tensor(KINDS.num_categories).cumsum(0)[kind_DF] - torch.tensor(KINDS.num_categories)[kind_DF]
    at_DF = torch.where(has_DF, len(KINDS.slot) + first_DF + block.edges["category"], 0)
    moved_DFI = moved_DFI + keys.vector_VI[at_DF] * has_DF[:, :, None]
    query_DHI = torch.einsum("di,hij->dhj", rows_SI[: block.num_dst], layer.scoring.key_HII)
    logit_DFH = torch.einsum("dhi,dfi->dfh", query_DHI, moved_DFI)
    masked_DFH = logit_DFH.masked_fill(~block.mask_DF()[:, :, None], -torch.inf)
    expected_DFH = masked_DFH.softmax(dim=1).nan_to_num()
    assert_close(layer(rows_SI, block).alpha_DFH, expected_DFH, rtol=1e-9, atol=1e-9)


def test_keys_and_terms_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="keys.*degree_dot; with degree take terms"):
        attention(scoring="degree", keys=["relation"])
    with pytest.raises(ValueError, match="weight_scale=log is of the term weight"):
        attention(terms=["rank"], weight_scale="log")
    with pytest.raises(ValueError, match="keys are for the logits of a softmax"):
        attention(scoring="dot", normalization="linear", keys=["relation"])
