"""The attention layer against other implementations and against numbers worked out by hand."""

import pytest
import torch
from nn_cases import SIZE_OF, attention, random_block
from torch.testing import assert_close

from dist_gat.nn.attention import AttentionLayer
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import WHY_NOT_DGL, dgl

SIZE = SIZE_OF[torch.float32]


def edges_of(block: Block) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and destinations of the real edges."""
    destination, column = block.mask_DF().nonzero(as_tuple=True)
    return block.neighbors_DF[destination, column], destination


def assert_same_layer(ours, theirs, run_theirs, weights, block):
    """Equal outputs, input gradients and weight gradients for the same weights."""
    for name, parameter in ours.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5)
        with torch.no_grad():
            weights[name].copy_(parameter.view_as(weights[name]))
    rows, other_rows = (torch.randn(block.num_src, SIZE, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    y_DO, other_DO = ours(rows.requires_grad_(), block).rows_DO, run_theirs(other_rows.requires_grad_())
    assert_close(y_DO, other_DO, rtol=1e-5, atol=1e-5)
    upstream_DO = torch.randn_like(y_DO)
    y_DO.backward(upstream_DO)
    other_DO.backward(upstream_DO)
    assert_close(rows.grad, other_rows.grad, rtol=1e-5, atol=1e-5)
    assert {id(weight) for weight in weights.values()} == {id(weight) for weight in theirs.parameters()}
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, weights[name].grad.view_as(parameter), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(dgl is None, reason=WHY_NOT_DGL)
@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", ["GATConv", "GATv2Conv"])
def test_equals_dgl(kind, num_heads, residual):
    torch.manual_seed(0)
    block = random_block(0, num_dst=9, num_src=15)
    graph = dgl.create_block(edges_of(block), num_src_nodes=block.num_src, num_dst_nodes=block.num_dst)
    theirs = getattr(dgl.nn, kind)(SIZE, SIZE // num_heads, num_heads, residual=residual, allow_zero_in_degree=True)
    scoring = {"GATConv": "additive", "GATv2Conv": "additive_v2"}[kind]
    ours = AttentionLayer(attention(scoring=scoring, num_heads=num_heads, residual=residual), SIZE, SIZE)
    if kind == "GATConv":
        pairs = {"value": theirs.fc}
        weights = {"source_HO": theirs.attn_l, "query_HO": theirs.attn_r, "bias": theirs.bias}
    else:
        pairs = {"value": theirs.fc_src, "query": theirs.fc_dst}
        weights = {"attention_HO": theirs.attn}
    weights |= {f"{name}.{key}": p for name, linear in pairs.items() for key, p in linear.named_parameters()}
    weights = {f"scoring.{name}": weight for name, weight in weights.items()}
    assert_same_layer(ours, theirs, lambda rows: theirs(graph, rows).flatten(1), weights, block)


def test_equals_pyg():
    conv = pytest.importorskip("torch_geometric.nn").GATConv
    torch.manual_seed(0)
    block = random_block(0)
    theirs = conv(SIZE, SIZE // 2, heads=2, add_self_loops=False)
    ours = AttentionLayer(attention(scoring="additive", num_heads=2, residual=False), SIZE, SIZE)
    weights = {
        "scoring.value.weight": theirs.lin.weight,
        "scoring.source_HO": theirs.att_src,
        "scoring.query_HO": theirs.att_dst,
        "scoring.bias": theirs.bias,
    }
    edge_index = torch.stack(edges_of(block))
    run = lambda rows: theirs((rows, rows[: block.num_dst]), edge_index)  # noqa: E731
    assert_same_layer(ours, theirs, run, weights, block)


def test_in_and_out_sizes_may_differ():
    block, rows = random_block(0), torch.rand(12, SIZE)
    for settings in ({"scoring": "additive", "num_heads": 2}, {"scoring": "dot", "transform": "mlp"}):
        layer = AttentionLayer(attention(**settings, residual=False), SIZE, 2 * SIZE)
        assert layer(rows, block).rows_DO.shape == (block.num_dst, 2 * SIZE)
    for settings in ({"scoring": "additive"}, {"scoring": "dot", "residual": False}):
        with pytest.raises(AssertionError):
            AttentionLayer(attention(**settings), 4, 6)


# h, then its neighbours l_1, l_2, l_3. Scores h.l = .42, .25, .31; their sum is .98.
EXAMPLE_ROWS = [[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.0, 0.5, 0.5], [0.3, 0.2, 0.5]]
EXAMPLE_BLOCK = Block(torch.tensor([[1, 2, 3]]), torch.tensor([3]), 4)


@pytest.mark.parametrize(
    ("settings", "alpha_F", "z_I"),
    [
        ({"normalization": "linear"}, [0.4286, 0.2551, 0.3163], [0.3520, 0.3622, 0.2857]),
        ({}, [0.3650, 0.3080, 0.3270], [0.3171, 0.3654, 0.3175]),
    ],
)
def test_worked_example(settings, alpha_F, z_I):
    # as long as the rows of other tests; zeros change nothing
    rows = torch.nn.functional.pad(torch.tensor(EXAMPLE_ROWS), (0, SIZE - 3))
    z_O = torch.nn.functional.pad(torch.tensor(z_I), (0, SIZE - 3))
    attended = AttentionLayer(attention(scoring="dot", residual=False, **settings), SIZE, SIZE)(rows, EXAMPLE_BLOCK)
    assert_close(attended.alpha_DFH[0, :, 0], torch.tensor(alpha_F), atol=5e-5, rtol=0)
    assert_close(attended.rows_DO[0], z_O, atol=1e-4, rtol=0)
    y_O = AttentionLayer(attention(scoring="dot", **settings), SIZE, SIZE)(rows, EXAMPLE_BLOCK).rows_DO[0]
    assert_close(y_O, attended.rows_DO[0] + rows[0])


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("transform", ["none", "mlp"])
@pytest.mark.parametrize("scoring", ["dot", "dot_exp"])
def test_dot_equals_a_loop_over_edges(scoring, num_heads, transform):
    torch.manual_seed(0)
    size = SIZE_OF[torch.float64]
    layer = AttentionLayer(attention(scoring=scoring, num_heads=num_heads, transform=transform), size, size).double()
    torch.nn.init.normal_(layer.scoring.key_HII, std=0.1)  # the naive s exp(s) must not overflow
    block, rows = random_block(2), torch.randn(12, size, dtype=torch.float64)
    for u, y_O in enumerate(layer(rows, block).rows_DO):
        near = block.neighbors_DF[u, : block.count_D[u]].tolist()
        z_I = torch.zeros(size, dtype=torch.float64)
        for key_II in layer.scoring.key_HII:
            score_F = [rows[u] @ key_II @ rows[i] for i in near]
            exp_F = [(s * s.exp() if scoring == "dot_exp" else s).exp() for s in score_F]
            z_I += sum(e / sum(exp_F) * rows[i] for e, i in zip(exp_F, near, strict=True)) / num_heads
        if transform == "mlp":
            hidden, _, out = layer.scoring.transform
            z_I = out.weight @ torch.nn.functional.leaky_relu(hidden.weight @ z_I, 0.2)
        assert_close(y_O, rows[u] + z_I)


def test_heads_of_dot_start_near_the_identity_but_apart():
    torch.manual_seed(0)
    key_HII = AttentionLayer(attention(scoring="dot", num_heads=2), SIZE, SIZE).scoring.key_HII
    assert (key_HII - torch.eye(SIZE)).abs().max() < 0.2
    assert (key_HII[0] - key_HII[1]).abs().max() > 0.01
    assert_close(AttentionLayer(attention(scoring="dot"), 3, 3).scoring.key_HII[0], torch.eye(3))
