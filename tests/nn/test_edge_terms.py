"""What edges carry, as terms of the logit: against numpy, PyG, and layers without terms."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nn_cases import KINDS, SCHEMA, SIZE_OF, attention, block_of_kinds, case, ragged_block, random_block, run
from torch.testing import assert_close

from dist_gat.base.errors import DataError
from dist_gat.graph.schema import INTERACTIONS, Schema
from dist_gat.kernels.weighting import Rule
from dist_gat.nn.attend import attend, attend_plain
from dist_gat.nn.attention import AttentionLayer, attention_shares
from dist_gat.nn.edge_terms import (
    KNOTS,
    PLAIN_KINDS,
    EdgeTerms,
    check_edges,
    columns_read,
    degrees_of_ends,
    edges_alike,
)

SIZE = SIZE_OF[torch.float64]


def test_edge_types_of_a_schema() -> None:
    assert [(one.relation.name, one.source, one.target, one.backward) for one in SCHEMA.edge_types] == [
        ("buy", "item", "user", True), ("buy", "user", "item", False), ("friends", "user", "user", True),
        ("follows", "user", "user", True), ("kg", "tag", "item", True), ("kg", "item", "tag", False),
    ]  # fmt: skip
    assert [SCHEMA.into(kind) for kind in SCHEMA.node_types] == [(0, 2, 3), (1, 4), (5,)]
    assert KINDS.slot == (0, 0, 1, 2, 1, 0)
    assert KINDS.reverse_slot == (0, 0, 1, None, 0, 1)
    assert KINDS.num_categories == (0, 0, 0, 0, 3, 3)
    assert KINDS.has_time == (True, True, False, False, False, False)


@pytest.mark.parametrize("rule", [Rule.SOFTMAX, Rule.EXP, Rule.LINEAR])
@pytest.mark.parametrize(("shared", "mean", "head_size"), [(False, True, 0), (True, False, 4)])
def test_the_kernel_adds_a_bias_as_plain_torch_does(rule: Rule, shared: bool, mean: bool, head_size: int) -> None:
    block = ragged_block(3, 40, 90, 7)
    leaves, weighting_of = case(1, block, rule, 2, SIZE, shared, mean, not shared, True, head_size=head_size)
    ours, plain = (run(function, leaves, weighting_of, block) for function in (attend, attend_plain))
    for one, other in zip(ours, plain, strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9)
    bias = 4 + (not shared)
    assert ours[bias].shape[:2] == block.neighbors_DF.shape
    assert ours[bias].abs().sum() > 0, "the bias has a gradient"
    without, _ = attend(leaves[0], block, replace(weighting_of(*leaves), bias_DFH=None))
    assert not torch.allclose(without, ours[0])


@pytest.mark.parametrize("log_weights", [False, True])
def test_terms_are_what_numpy_makes_of_them(log_weights: bool) -> None:
    names = ["relation", "category", "weight", "age", "rank", "degree"]
    terms, block = EdgeTerms(names, 2, KINDS, log_weights).double(), block_of_kinds()
    for parameter in terms.parameters():
        torch.nn.init.normal_(parameter)
    found = terms(block).detach().numpy()
    relation, category = (x.detach().numpy() for x in (terms.relation_KH, terms.category_CH))
    edges = {name: values.numpy() for name, values in block.edges.items()}
    for u in range(block.num_dst):
        for f in range(block.neighbors_DF.shape[1]):
            kind = int(edges["kind"][u, f])
            expected = relation[kind].copy()
            if kind >= 4:
                expected += category[3 * (kind - 4) + int(edges["category"][u, f])]
            weight = (edges["weight"][u, f] - KINDS.weight_mean[kind]) / KINDS.weight_deviation[kind]
            if log_weights:
                logarithm = np.log1p(max(edges["weight"][u, f], 0))
                weight = (logarithm - KINDS.log_weight_mean[kind]) / KINDS.log_weight_deviation[kind]
            values = {
                "weight": weight,
                "age": edges["age"][u, f], "rank": np.log2(1 + edges["rank"][u, f]),
            }  # fmt: skip
            for name, value in values.items():
                knots, curve = KNOTS[name], terms.curves[name].detach().numpy()
                at = knots.first + knots.step * np.arange(knots.number)
                own = curve[kind * knots.number : (kind + 1) * knots.number]
                if name == "weight" or KINDS.has_time[kind]:
                    expected += [np.interp(value, at, own[:, head]) for head in range(2)]
            source, back = int(block.neighbors_DF[u, f]), KINDS.reverse_slot[kind]
            degree = 1 if back is None else max(int(block.degree_SK[source, back]), 1)
            expected -= 0.5 * np.log(degree) * terms.degree_H.detach().numpy()
            np.testing.assert_allclose(found[u, f], expected, rtol=1e-5, atol=1e-5)


def test_degrees_are_those_along_the_relation() -> None:
    block = block_of_kinds(2)
    own_DF, near_DF = degrees_of_ends(block, KINDS)
    alike_DF = edges_alike(block, KINDS)
    for u, count in enumerate(block.count_D.tolist()):
        for f in range(count):
            kind, source = int(block.edges["kind"][u, f]), int(block.neighbors_DF[u, f])
            back = KINDS.reverse_slot[kind]
            assert own_DF[u, f] == max(int(block.degree_SK[u, KINDS.slot[kind]]), 1)
            assert near_DF[u, f] == (1 if back is None else max(int(block.degree_SK[source, back]), 1))
            assert alike_DF[u, f] == (block.edges["kind"][u, :count] == kind).sum()


@pytest.mark.parametrize("scoring", ["degree", "dot", "additive", "additive_v2", "dot_exp", "degree_dot", "uniform"])
def test_training_starts_where_it_is_without_terms(scoring: str) -> None:
    torch.manual_seed(0)
    block, rows = random_block(1, 9, 14), torch.randn(14, SIZE, dtype=torch.float64)
    terms = ["relation", "weight", "age", "rank", "degree"]
    plain = AttentionLayer(attention(scoring=scoring), SIZE, SIZE).double()
    more = AttentionLayer(attention(scoring=scoring, terms=terms), SIZE, SIZE).double()
    more.load_state_dict(plain.state_dict(), strict=False)
    expected = plain(rows, block)
    assert_close(more(rows, block).rows_DO, expected.rows_DO)
    for parameter in more.scoring.terms.parameters():
        torch.nn.init.normal_(parameter)
    assert not torch.allclose(more(rows, block).rows_DO, expected.rows_DO)


def test_degree_dot_starts_as_degree() -> None:
    block, rows = random_block(1, 9, 14), torch.randn(14, SIZE, dtype=torch.float64)
    layers = [AttentionLayer(attention(scoring=name), SIZE, SIZE).double() for name in ("degree", "degree_dot")]
    assert_close(*(layer(rows, block).rows_DO for layer in layers))


@pytest.mark.parametrize("scoring", ["degree", "degree_dot"])
def test_weights_keep_the_sum_that_degrees_give(scoring: str) -> None:
    block, rows = block_of_kinds(4), torch.randn(15, SIZE, dtype=torch.float64)
    settings: dict[str, Any] = {"scoring": scoring, "residual": False}
    ones = torch.ones_like(rows)
    plain = AttentionLayer(attention(**settings | {"scoring": "degree"}), SIZE, SIZE, KINDS).double()
    more = AttentionLayer(attention(**settings, terms=["relation", "rank"]), SIZE, SIZE, KINDS).double()
    for parameter in more.parameters():
        torch.nn.init.normal_(parameter)
    assert_close(more(ones, block).rows_DO, plain(ones, block).rows_DO)
    assert not torch.allclose(more(rows, block).rows_DO, plain(rows, block).rows_DO)


def test_a_term_of_the_relation_is_that_of_pyg() -> None:
    """`GATConv` with a one-hot vector of the relation as the features of an edge."""
    conv = pytest.importorskip("torch_geometric.nn").GATConv
    torch.manual_seed(0)
    block, size = block_of_kinds(5), SIZE_OF[torch.float32]
    theirs = conv(size, size // 2, heads=2, add_self_loops=False, edge_dim=6)
    ours = AttentionLayer(
        attention(scoring="additive", num_heads=2, residual=False, terms=["relation"]), size, size, KINDS
    )
    edge_HO = (theirs.lin_edge.weight.T.view(6, 2, -1) * theirs.att_edge).sum(dim=2)
    with torch.no_grad():
        ours.scoring.value.weight.copy_(theirs.lin.weight)
        ours.scoring.source_HO.copy_(theirs.att_src[0])
        ours.scoring.query_HO.copy_(theirs.att_dst[0])
        ours.scoring.terms.relation_KH.copy_(edge_HO)
    rows, others = (torch.randn(15, size, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    destination, column = block.mask_DF().nonzero(as_tuple=True)
    index = torch.stack([block.neighbors_DF[destination, column], destination])
    one_hot = torch.nn.functional.one_hot(block.edges["kind"][destination, column], 6).float()
    mine = ours(rows.requires_grad_(), block).rows_DO
    other = theirs((others.requires_grad_(), others[: block.num_dst]), index, edge_attr=one_hot)
    assert_close(mine, other, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(mine)
    mine.backward(upstream)
    other.backward(upstream)
    assert_close(rows.grad, others.grad, rtol=1e-5, atol=1e-5)
    through_HO = torch.autograd.grad(edge_HO, theirs.lin_edge.weight, ours.scoring.terms.relation_KH.grad)[0]
    assert_close(through_HO, theirs.lin_edge.weight.grad, rtol=1e-5, atol=1e-5)


def test_only_what_is_read_is_fetched() -> None:
    plain = attention()
    assert columns_read(plain, False, KINDS) == ()
    assert columns_read(plain, True, KINDS) == ("kind",)
    assert columns_read(plain, True, PLAIN_KINDS) == ()
    assert columns_read(attention(terms=["rank", "weight"]), False, KINDS) == ("kind", "weight", "rank")
    assert columns_read(attention(keys=["category"]), False, KINDS) == ("kind", "category")
    assert columns_read(attention(softmax="relation"), False, KINDS) == ("kind",)
    assert columns_read(attention(softmax="relation"), False, PLAIN_KINDS) == ()
    # users and items have a matrix each, with terms and without
    assert columns_read(attention(projection="relation"), False, PLAIN_KINDS) == ("kind",)


def test_shares_of_attention_by_edge_type() -> None:
    block = block_of_kinds(6)
    layer = AttentionLayer(attention(scoring="uniform", terms=["relation"]), SIZE, SIZE, KINDS).double()
    alpha = layer(torch.randn(15, SIZE, dtype=torch.float64), block).alpha_DFH
    found = attention_shares(alpha, block, KINDS)
    assert found.keys() == set(KINDS.names)
    assert sum(found.values()) == pytest.approx(1)
    of_friends = alpha[:, :, 0][(block.edges["kind"] == 2) & block.mask_DF()].sum() / alpha.sum()
    assert found["friends"] == pytest.approx(float(of_friends))
    assert attention_shares(alpha, replace(block, edges={}), KINDS) == {}


@pytest.mark.parametrize(
    "names", [["relation"], ["category", "rank"], ["weight", "age", "rank", "relation", "category"]]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_sums_what_plain_torch_does(names: list[str], dtype: torch.dtype) -> None:
    terms, block = EdgeTerms(names, 2, KINDS).to(dtype), block_of_kinds(7, 600, 900, 60)
    for parameter in terms.parameters():
        torch.nn.init.normal_(parameter)
    upstream = torch.randn(*block.neighbors_DF.shape, 2, dtype=dtype)
    found = []
    for out in (terms(block), torch.stack(terms._each(block)).sum(dim=0)):
        found.append([out, *torch.autograd.grad((out * upstream).sum(), list(terms.parameters()))])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-5  # positions on curves are float32 in the kernel
    for one, other in zip(*found, strict=True):
        assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_the_same_bits_for_any_number_of_threads() -> None:
    terms, block = EdgeTerms(["relation", "rank", "age"], 2, KINDS), block_of_kinds(8, 3000, 900, 60)
    for parameter in terms.parameters():
        torch.nn.init.normal_(parameter)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out = terms(block)
            found.append([out, *torch.autograd.grad(out.square().sum(), list(terms.parameters()))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for later in found[1:] for one, other in zip(found[0], later, strict=True))


def test_an_edge_type_that_there_is_none_of_is_refused() -> None:
    terms, block = EdgeTerms(["relation"], 1, KINDS), block_of_kinds()
    wrong = replace(block, edges={**block.edges, "kind": block.edges["kind"] + 6})
    with pytest.raises(AssertionError, match="an edge of a type or category that there is none of"):
        terms(wrong)


@pytest.mark.parametrize(
    ("schema", "settings", "told"),
    [
        (INTERACTIONS, {"terms": ["rank"]}, "model.terms names rank, and no edges have a time.* data.columns.datetime"),
        (INTERACTIONS, {"terms": ["weight"]}, "model.terms names weight, .* data.columns.weight"),
        (INTERACTIONS, {"keys": ["category"]}, "model.keys names category"),
        (SCHEMA, {"terms": ["weight"], "weight_scale": "log"}, "weight_scale=log.* run `dist-gat prepare` again"),
    ],
)
def test_what_no_edge_carries_is_told(schema: Schema, settings: dict, told: str) -> None:
    prepared: Any = SimpleNamespace(folder="data", schema=schema, manifest={"weights": {"buy": {"mean": 3.0}}})
    with pytest.raises(DataError, match=told):
        check_edges(attention(**settings), prepared)
    prepared.schema = SCHEMA
    check_edges(attention(terms=["category", "weight", "age"]), prepared)
