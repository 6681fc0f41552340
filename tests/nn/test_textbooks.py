"""A layer over several relations against DGL, PyG and dense sums, in outputs and in all gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_cases import KINDS, SIZE_OF, attention, block_of_kinds
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from dist_gat.kernels.weighting import MAX_EXPONENT, Rule
from dist_gat.nn import attention as attention_module
from dist_gat.nn.attend import Attend, attend, attend_plain
from dist_gat.nn.attention import AttentionLayer
from dist_gat.nn.edge_terms import KNOTS, degrees_of_ends, edges_alike
from dist_gat.nn.scoring import AdditiveScoring, AdditiveV2Scoring, DegreeDotScoring, DotScoring, UniformScoring
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import WHY_NOT_DGL, dgl

SIZE, HEADS, NUM_DST, NUM_SRC = SIZE_OF[torch.float64], 2, 12, 20
NUM_KINDS = len(KINDS.slot)
ALL_TERMS = ["relation", "category", "weight", "age", "rank", "degree"]


def layer_of(**settings: object) -> AttentionLayer:
    torch.manual_seed(0)
    layer = AttentionLayer(attention(residual=False, **settings), SIZE, SIZE, KINDS).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def rows_of() -> Tensor:
    return torch.randn(NUM_SRC, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def edges_of(block: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, destinations and types of the real edges."""
    destination, column = block.mask_DF().nonzero(as_tuple=True)
    return block.neighbors_DF[destination, column], destination, block.edges["kind"][destination, column]


def assert_same(ours: Tensor, own_leaves: list[Tensor], theirs: Tensor, leaves: list[Tensor]) -> None:
    """Equal outputs, and equal gradients of leaves of equal shape."""
    assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad(ours, own_leaves, upstream)
    for one, other in zip(found, torch.autograd.grad(theirs, leaves, upstream), strict=True):
        assert one.abs().max() > 1e-3, "the gradient is one"
        assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(dgl is None, reason=WHY_NOT_DGL)
def test_equals_hetero_graph_conv_where_a_destination_has_one_relation() -> None:
    """DGL has a softmax a relation, we have one over all; the same where each destination has edges of one type.

    `HeteroGraphConv` has a `GATConv` a type. The first output of each head is 1 for every node, so its attention
    vectors can add a number a type, as our term does; what makes it 1 is left out of the gradients.
    """
    block = block_of_kinds(3, NUM_DST, NUM_SRC)
    kind_DF = (torch.arange(NUM_DST) % NUM_KINDS)[:, None].expand(block.neighbors_DF.shape).contiguous()
    block = replace(block, edges={"kind": kind_DF})
    ours, head_size = layer_of(scoring="additive", num_heads=HEADS, terms=["relation"]), SIZE // HEADS
    scoring, rows = ours.scoring, rows_of()
    with torch.no_grad():
        scoring.bias.zero_()
        rows[:, 0] = 1
        scoring.value.weight[::head_size] = functional.one_hot(torch.tensor(0), SIZE).double()
    names = [f"type {kind}" for kind in range(NUM_KINDS)]
    convs = {
        name: dgl.nn.GATConv(SIZE, head_size, HEADS, allow_zero_in_degree=True, bias=False).double() for name in names
    }
    value, source, query, relation = (
        x.detach().clone().requires_grad_()
        for x in (scoring.value.weight, scoring.source_HO, scoring.query_HO, scoring.terms.relation_KH)
    )
    first_O = functional.one_hot(torch.tensor(0), head_size)
    for kind, conv in enumerate(convs.values()):
        for module, name, weight in (
            (conv.fc, "weight", value), (conv, "attn_l", source[None]),
            (conv, "attn_r", (query + relation[kind][:, None] * first_O)[None]),
        ):  # fmt: skip
            delattr(module, name)
            setattr(module, name, weight)
    sources, destinations, kinds = edges_of(block)
    graph = dgl.create_block(
        {("node", name, "node"): (sources[kinds == n], destinations[kinds == n]) for n, name in enumerate(names)},
        num_src_nodes={"node": NUM_SRC}, num_dst_nodes={"node": NUM_DST},
    )  # fmt: skip
    others = rows.detach().clone().requires_grad_()
    theirs = dgl.nn.HeteroGraphConv(convs, aggregate="sum")(graph, {"node": others})["node"].flatten(1)
    free_I, free_O = torch.arange(SIZE) > 0, torch.arange(SIZE) % head_size > 0
    for leaf, is_free in (
        (rows, free_I), (others, free_I), (value, free_O[:, None]), (scoring.value.weight, free_O[:, None])
    ):  # fmt: skip
        leaf.register_hook(is_free.__mul__)
    own_leaves = [rows, scoring.value.weight, scoring.source_HO, scoring.query_HO, scoring.terms.relation_KH]
    assert_same(ours(rows, block).rows_DO, own_leaves, theirs, [others, value, source, query, relation])


def test_equals_rgat_conv_with_one_softmax_over_all_relations() -> None:
    """PyG's, with the same projection for all relations and with a number a relation as an edge attribute."""
    conv = pytest.importorskip("torch_geometric.nn").RGATConv
    block, head_size = block_of_kinds(4, NUM_DST, NUM_SRC), SIZE // HEADS
    ours = layer_of(scoring="additive", num_heads=HEADS, terms=["relation"])
    scoring, rows, others = ours.scoring, rows_of(), rows_of()
    theirs = conv(SIZE, head_size, NUM_KINDS, heads=HEADS, edge_dim=NUM_KINDS).double()
    names = ("value.weight", "source_HO", "query_HO", "terms.relation_KH", "bias")
    value, source, query, relation, bias = (scoring.get_parameter(x).detach().clone().requires_grad_() for x in names)
    pick = torch.zeros(SIZE, HEADS, dtype=torch.float64)
    pick[:HEADS] = torch.eye(HEADS)
    for module, name, weight in (
        (theirs, "weight", value.T.expand(NUM_KINDS, SIZE, SIZE)), (theirs, "bias", bias), (theirs, "e", pick),
        (theirs, "k", torch.block_diag(*source).T), (theirs, "q", torch.block_diag(*query).T),
        (theirs.lin_edge, "weight", functional.pad(relation, (0, SIZE - HEADS)).T),
    ):  # fmt: skip
        delattr(module, name)
        setattr(module, name, weight)
    sources, destinations, kinds = edges_of(block)
    one_hot = functional.one_hot(kinds, NUM_KINDS).double()
    other_DO = theirs(others, torch.stack([sources, destinations]), kinds, one_hot)[:NUM_DST]
    own_leaves = [rows, *(scoring.get_parameter(x) for x in names)]
    assert_same(ours(rows, block).rows_DO, own_leaves, other_DO, [others, value, source, query, relation, bias])


def test_equals_hgt_conv_with_the_same_keys_for_all_relations() -> None:
    """PyG's, with one head and raw rows as messages; what it does to a node's aggregate is done to ours, too."""
    conv = pytest.importorskip("torch_geometric.nn").HGTConv
    block, ours = block_of_kinds(5, NUM_DST, NUM_SRC), layer_of(scoring="dot")
    types = [("node", f"type {kind}", "node") for kind in range(NUM_KINDS)]
    theirs, eye = conv(SIZE, SIZE, (["node"], types)).double(), torch.eye(SIZE).double()
    rows, others, key = rows_of(), rows_of(), ours.scoring.key_HII.detach().clone().requires_grad_()
    theirs.kqv_lin.lins["node"].bias = None
    for module, name, weight in (
        (theirs.kqv_lin.lins["node"], "weight", torch.cat([SIZE**0.5 * key[0], eye, eye])),
        (theirs.k_rel, "weight", eye.expand(NUM_KINDS, SIZE, SIZE)),
        (theirs.v_rel, "weight", eye.expand(NUM_KINDS, SIZE, SIZE)),
    ):  # fmt: skip
        delattr(module, name)
        setattr(module, name, weight)
    sources, destinations, kinds = edges_of(block)
    index = {kind: torch.stack([sources, destinations])[:, kinds == n] for n, kind in enumerate(types)}
    other_DO = theirs({"node": others}, index)["node"][:NUM_DST]
    share = theirs.skip["node"].sigmoid()
    mine_DO = theirs.out_lin({"node": functional.gelu(ours(rows, block).rows_DO)})["node"]
    mine_DO = share * mine_DO + (1 - share) * rows[:NUM_DST]
    assert_same(mine_DO, [rows, ours.scoring.key_HII], other_DO, [others, key])


def dense_terms(layer: AttentionLayer, block: Block) -> Tensor:
    """b_DFH as sums over one-hot vectors and tents: |x - knot| < step has the share 1 - |x - knot| / step."""
    terms, edges = layer.scoring.terms, block.edges
    kind_DFK = functional.one_hot(edges["kind"], NUM_KINDS).double()
    total = torch.einsum("dfk,kh->dfh", kind_DFK, terms.relation_KH)
    num_categories = torch.tensor(KINDS.num_categories)
    at_DF = (num_categories.cumsum(0) - num_categories)[edges["kind"]] + edges["category"]
    category_DFC = functional.one_hot(at_DF, int(num_categories.sum()) + 9)[:, :, : int(num_categories.sum())].double()
    category_DFC = category_DFC * (num_categories > 0)[edges["kind"]][:, :, None]
    total = total + torch.einsum("dfc,ch->dfh", category_DFC, terms.category_CH)
    mean, deviation = (torch.tensor(x).double() for x in (KINDS.weight_mean, KINDS.weight_deviation))
    places = {
        "weight": torch.einsum("dfk,dfk->df", kind_DFK, (edges["weight"].double()[:, :, None] - mean) / deviation),
        "age": edges["age"].double(),
        "rank": (1.0 + edges["rank"]).double().log2(),
    }
    for name, place_DF in places.items():
        knots, curve = KNOTS[name], terms.curves[name].unflatten(0, (NUM_KINDS, -1))
        at_N = knots.first + knots.step * torch.arange(knots.number, dtype=torch.float64)
        tents_DFN = (1 - (place_DF.clamp(at_N[0], at_N[-1])[:, :, None] - at_N).abs() / knots.step).clamp(min=0)
        has_curve_K = torch.tensor([name == "weight" or has_time for has_time in KINDS.has_time]).double()
        total = total + torch.einsum("dfn,dfk,k,knh->dfh", tents_DFN, kind_DFK, has_curve_K, curve)
    degree_DF = degrees_of_ends(block, KINDS)[1].double()
    return total - torch.einsum("df,h->dfh", degree_DF.log() / 2, terms.degree_H)


def dense_layer(layer: AttentionLayer, rows: Tensor, block: Block) -> Tensor:
    """The equations of `dist_gat.nn.scoring` with each neighbour as a one-hot vector over all sources."""
    scoring, kind, own = layer.scoring, type(layer.scoring), rows[: block.num_dst]
    at_DFS = functional.one_hot(block.neighbors_DF, block.num_src).double()
    real_DF1 = block.mask_DF()[:, :, None].double()
    bias_DFH = dense_terms(layer, block)

    def share(logits_DFH: Tensor) -> Tensor:
        exp_DFH = logits_DFH.exp() * real_DF1
        return exp_DFH / exp_DFH.sum(dim=1, keepdim=True).clamp(min=1e-30)

    def mean(alpha_DFH: Tensor) -> Tensor:
        return torch.einsum("dfh,dfs,si->di", alpha_DFH, at_DFS, rows) / alpha_DFH.shape[2]

    if kind is AdditiveScoring:
        projected_SHO = torch.einsum("si,hoi->sho", rows, scoring.value.weight.unflatten(0, (HEADS, -1)))
        source_SH = torch.einsum("sho,ho->sh", projected_SHO, scoring.source_HO)
        own_DH = torch.einsum("dho,ho->dh", projected_SHO[: block.num_dst], scoring.query_HO)
        logits_DFH = torch.einsum("dfs,sh->dfh", at_DFS, source_SH) + own_DH[:, None] + bias_DFH
        alpha_DFH = share(functional.leaky_relu(logits_DFH, 0.2))
        return torch.einsum("dfh,dfs,sho->dho", alpha_DFH, at_DFS, projected_SHO).flatten(1) + scoring.bias
    if kind is AdditiveV2Scoring:
        source_SHO, query_DHO = scoring.value(rows).unflatten(1, (HEADS, -1)), scoring.query(own)
        sum_DFHO = torch.einsum("dfs,sho->dfho", at_DFS, source_SHO) + query_DHO.unflatten(1, (1, HEADS, -1))
        logits_DFH = torch.einsum("dfho,ho->dfh", functional.leaky_relu(sum_DFHO, 0.2), scoring.attention_HO)
        return torch.einsum("dfh,dfs,sho->dho", share(logits_DFH + bias_DFH), at_DFS, source_SHO).flatten(1)
    if kind is UniformScoring:
        return mean(share(bias_DFH))
    if kind is DotScoring:
        scores_DFH = torch.einsum("di,hij,dfs,sj->dfh", own, scoring.key_HII, at_DFS, rows) + bias_DFH
        if scoring.rule == Rule.EXP:
            scores_DFH = scores_DFH * scores_DFH.clamp(max=MAX_EXPONENT).exp()
        return mean(share(scores_DFH))
    own_DF, near_DF = (degree.double() for degree in degrees_of_ends(block, KINDS))
    weight_DF1 = (own_DF / near_DF).sqrt()[:, :, None] / edges_alike(block, KINDS)[:, :, None] * real_DF1
    logits_DFH = weight_DF1.clamp(min=1e-30).log() + bias_DFH
    if kind is DegreeDotScoring:
        logits_DFH = logits_DFH + torch.einsum("di,hij,dfs,sj->dfh", own, scoring.key_HII, at_DFS, rows)
    return mean(share(logits_DFH)) * weight_DF1.sum(dim=1)


@pytest.mark.parametrize(
    "scoring", ["additive", "additive_v2", "dot", "dot_exp", "uniform", "degree", "degree_dot"]
)  # fmt: skip
@pytest.mark.parametrize("run", [attend, attend_plain])
def test_equals_dense_sums_with_all_terms(scoring: str, run: Attend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "attend", run)
    block, rows = block_of_kinds(6, NUM_DST, NUM_SRC), rows_of()
    layer = layer_of(scoring=scoring, num_heads=HEADS, terms=ALL_TERMS)
    with torch.no_grad():
        rows *= 0.3  # s exp(s) grows fast
    leaves = [rows, *(p for name, p in layer.named_parameters() if not name.endswith("value.bias"))]
    ours, theirs = layer(rows, block).rows_DO, dense_layer(layer, rows, block)
    assert_same(ours, leaves, theirs, leaves)
