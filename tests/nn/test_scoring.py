"""Properties of the attention weights and aggregates that hold for every scoring."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_cases import SIZE_OF, VARIANTS, attention, every_variant, random_block, random_edges
from torch.testing import assert_close

from dist_gat.nn.attention import AttentionLayer, attention_entropy
from dist_gat.nn.scoring import exp_logits, linear_weights
from dist_gat.sampling.block import Block


def layer_of(variant: dict, dtype: torch.dtype = torch.float64, **more: object) -> AttentionLayer:
    torch.manual_seed(5)
    size = SIZE_OF[dtype]
    layer = AttentionLayer(attention(**variant, **more), size, size).to(dtype)
    for parameter in layer.parameters():  # away from identity and zero bias, where mistakes could hide
        torch.nn.init.normal_(parameter, std=0.7)
    return layer


def rows_of(num_rows: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    # Positive rows keep the sums of linear normalisation away from its guard.
    return (
        torch.rand(num_rows, SIZE_OF[dtype], generator=torch.Generator().manual_seed(3), dtype=dtype) + 0.2
    ).requires_grad_()


@every_variant
def test_weights_sum_to_one_over_the_neighbours(variant):
    block = random_block(0)
    alpha_DFH = layer_of(variant)(rows_of(12), block).alpha_DFH
    assert (alpha_DFH[~block.mask_DF()] == 0).all()
    if variant["scoring"] != "degree":
        assert_close(alpha_DFH.sum(1), (block.count_D > 0).double()[:, None].expand(-1, alpha_DFH.shape[2]))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(VARIANTS), st.integers(0, 10**6), st.integers(0, 3))
def test_padding_and_order_of_neighbours_never_matter(variant, seed, extra):
    block = random_block(seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (block.num_dst, block.neighbors_DF.shape[1] + extra)
    garbage_DF, edges = torch.randint(0, block.num_src, shape), random_edges(*shape, generator)
    for u, count in enumerate(block.count_D.tolist()):
        order = torch.randperm(count, generator=generator)
        garbage_DF[u, :count] = block.neighbors_DF[u, order]
        for name, values in edges.items():
            values[u, :count] = block.edges[name][u, order]
    other = replace(block, neighbors_DF=garbage_DF, edges=edges)
    layer, rows = layer_of(variant), rows_of(12)
    y_DO, other_DO = layer(rows, block).rows_DO, layer(rows, other).rows_DO
    assert_close(y_DO, other_DO)
    weight_DO = torch.rand_like(y_DO)
    assert_close(*(torch.autograd.grad((weight_DO * y).sum(), rows)[0] for y in (y_DO, other_DO)))


@every_variant
def test_gradients(variant):
    layer, block, rows = layer_of(variant), random_block(1), rows_of(12)
    if variant.get("normalization") == "linear":
        torch.nn.init.constant_(layer.scoring.key_HII, 0.5)
    names = [name for name, _ in layer.named_parameters()]

    def forward(rows_SI, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (rows_SI, block)).rows_DO

    assert torch.autograd.gradcheck(forward, (rows, *layer.parameters()))


@every_variant
@pytest.mark.parametrize(("num_dst", "num_src", "fan_out"), [(0, 0, 3), (0, 5, 3), (0, 0, 0), (4, 6, 0), (4, 6, 3)])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_nothing_to_attend_to(variant, num_dst, num_src, fan_out):
    none_D = torch.zeros(num_dst, dtype=torch.int64)
    block = Block(torch.zeros(num_dst, fan_out, dtype=torch.int64), none_D, num_src, torch.zeros(num_src, 1).long())
    block = replace(block, edges=random_edges(num_dst, fan_out, torch.Generator().manual_seed(0)))
    layer, rows = layer_of(variant, residual=False), rows_of(num_src)
    with torch.autograd.detect_anomaly(check_nan=True):  # no NaN inside either, not even one masked later
        attended = layer(rows, block)
        attended.rows_DO.sum().backward()
    expected_O = layer.scoring.bias if variant["scoring"] == "additive" else torch.zeros(8, dtype=torch.float64)
    assert_close(attended.rows_DO, expected_O.expand(num_dst, 8))
    assert attended.alpha_DFH.shape[:2] == (num_dst, fan_out)
    for tensor in (rows, *layer.parameters()):  # connected: DDP waits for every parameter on every rank
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@every_variant
def test_bfloat16_autocast(variant):
    layer, block = layer_of(variant, dtype=torch.float32), random_block(2)
    rows = rows_of(12, dtype=torch.float32)
    exact = layer(rows, block)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(rows, block)
    assert rough.alpha_DFH.dtype == torch.float32
    assert_close(rough.rows_DO, exact.rows_DO, rtol=0.1, atol=0.1)
    rough.rows_DO.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (rows, *layer.parameters()))


@pytest.mark.parametrize("scores", [[-5.0, -2, -1, 0.5, 3], [-9.0, -3, -1.1, -1.5, -40], [39.5, 40.5, 3, 38, 40]])
def test_dot_exp_is_the_softmax_of_s_exp_s(scores):
    s_F = torch.tensor(scores, dtype=torch.float64)
    assert_close(exp_logits(s_F).softmax(0), (s_F * s_F.exp()).softmax(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("top", [41.0, 200.0])
def test_dot_exp_takes_the_best_where_float64_cannot_tell_more(top):
    below = torch.tensor(top, dtype=torch.float64).nextafter(torch.tensor(0.0, dtype=torch.float64)).item()
    s_F = torch.tensor([top, below - 1e-12, -3.0, 5.0], dtype=torch.float64)
    expected_F = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    assert_close((s_F * s_F.exp()).softmax(0), expected_F)
    assert_close(exp_logits(s_F).softmax(0), expected_F)


@pytest.mark.parametrize("scores", [[200.0, 200, 199], [200.0, -200, 90], [-200.0, -200, -150], [88.0, 89, 87.5]])
def test_dot_exp_stays_finite_in_float32(scores):
    size = SIZE_OF[torch.float32]
    layer = AttentionLayer(attention(scoring="dot_exp"), size, size)
    rows = torch.nn.functional.pad(torch.tensor([[1.0], *([s] for s in scores)]), (0, size - 1)).requires_grad_()
    attended = layer(rows, Block(torch.tensor([[1, 2, 3]]), torch.tensor([3]), 4))
    attended.rows_DO.sum().backward()
    assert_close(attended.alpha_DFH.sum(), torch.tensor(1.0))
    assert attended.rows_DO.isfinite().all()
    assert rows.grad.isfinite().all()
    assert layer.scoring.key_HII.grad.isfinite().all()


def test_linear_weights_fall_back_to_uniform():
    block = Block(torch.zeros(4, 3, dtype=torch.int64), torch.tensor([3, 2, 2, 0]), 1)
    scores = torch.tensor([[1.0, 2, 1], [-1, -3, 9], [2, -2, 9], [7, 7, 7]])[..., None].requires_grad_()
    alpha_DFH = linear_weights(scores, block)
    expected_DF = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])
    assert_close(alpha_DFH[..., 0], expected_DF)
    (alpha_DFH * torch.rand_like(alpha_DFH)).sum().backward()
    assert scores.grad.isfinite().all()
    assert (scores.grad[1:] == 0).all()


def test_degree_weights_estimate_the_full_sum():
    """The mean over all samples of 2 of 5 neighbours is LightGCN's sum over the 5."""
    degree_S = torch.tensor([5, 1, 2, 3, 4, 9])
    layer, rows = layer_of({"scoring": "degree"}, residual=False), rows_of(6)
    full_O = (rows[1:] / (5 * degree_S[1:, None]).sqrt()).sum(0)
    blocks = [
        Block(torch.tensor([pair]), torch.tensor([2]), 6, degree_S[:, None]) for pair in combinations(range(1, 6), 2)
    ]
    assert_close(torch.stack([layer(rows, block).rows_DO[0] for block in blocks]).mean(0), full_O)


def test_entropy():
    block = random_block(4)
    uniform = layer_of({"scoring": "uniform"})(rows_of(12), block).alpha_DFH
    assert_close(attention_entropy(uniform, block), torch.tensor(1.0, dtype=torch.float64))
    assert attention_entropy((uniform > 0) * torch.tensor([1.0, 0, 0, 0])[:, None], block) == 0
    pair = Block(torch.tensor([[1, 2, 0], [1, 0, 0]]), torch.tensor([2, 1]), 3)
    alpha_DFH = torch.tensor([[[0.25], [0.75], [0]], [[1.0], [0], [0]]])
    for scale in (1, 3):  # degree weights don't sum to 1
        assert_close(attention_entropy(scale * alpha_DFH, pair), torch.tensor(0.811278))  # bits of a 1:3 coin
    assert attention_entropy(alpha_DFH[1:], Block(pair.neighbors_DF[1:], pair.count_D[1:], 3)) == 0
