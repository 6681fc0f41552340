import pytest
import scipy.sparse
import torch
from nn_cases import SIZE_OF, random_block
from torch.testing import assert_close

from dist_gat.config.model_sections import ModelConfig
from dist_gat.nn.encoder import Encoder, RunningCombination
from dist_gat.sampling.block import Block

SIZE = SIZE_OF[torch.float64]


def encoder_of(num_layers: int, **settings: object) -> Encoder:
    torch.manual_seed(0)
    model = ModelConfig.model_validate({"embedding_size": SIZE, **settings})
    return Encoder(model, num_layers).double()


def test_degree_scoring_on_the_full_graph_is_lightgcn():
    num_nodes, size, num_layers = 14, SIZE, 3
    torch.manual_seed(1)
    adjacency = torch.zeros(num_nodes, num_nodes)
    adjacency[:5, 5:] = (torch.rand(5, 9) < 0.4).float()  # 5 users, 9 items
    adjacency[1] = 0  # a user without interactions
    adjacency += adjacency.T.clone()
    degree = adjacency.sum(1)
    rows = torch.randn(num_nodes, size, dtype=torch.float64)

    scale = scipy.sparse.diags_array(degree.clamp(min=1).double().numpy() ** -0.5)
    propagate = scale @ scipy.sparse.csr_array(adjacency.double().numpy()) @ scale
    depths = [rows.numpy()]
    for _ in range(num_layers):
        depths.append(propagate @ depths[-1])

    neighbors_DF = adjacency.argsort(dim=1, descending=True, stable=True)[:, : int(degree.max())]
    block = Block(neighbors_DF, degree.long(), num_nodes, degree.long()[:, None])
    encoder = encoder_of(num_layers, scoring="degree", residual=False, combination="mean")
    encoded = encoder(rows, [block] * num_layers)
    assert_close(encoded.rows_NR, torch.from_numpy(sum(depths) / (num_layers + 1)))


@pytest.mark.parametrize("combination", ["last", "mean", "concat"])
def test_combination_over_shrinking_blocks(combination):
    encoder = encoder_of(2, combination=combination)
    outer, inner = random_block(0, num_dst=7, num_src=12), random_block(1, num_dst=3, num_src=7, fan_out=2)
    x_0 = torch.randn(12, SIZE, dtype=torch.float64)
    x_1 = encoder.layers[0](x_0, outer).rows_DO
    x_2 = encoder.layers[1](x_1, inner).rows_DO
    expected = {
        "last": x_2,
        "mean": (x_0[:3] + x_1[:3] + x_2) / 3,
        "concat": torch.cat([x_0[:3], x_1[:3], x_2], dim=1),
    }
    encoded = encoder(x_0, [outer, inner])
    assert_close(encoded.rows_NR, expected[combination])
    assert encoded.rows_NR.shape == (3, encoder.representation_size)
    assert [alpha.shape for alpha in encoded.alphas] == [(7, 4, 1), (3, 2, 1)]
    assert not any(alpha.requires_grad for alpha in encoded.alphas)


@pytest.mark.parametrize("combination", ["last", "mean", "concat"])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_depths_that_are_written_over_combine_the_same(combination, num_layers):
    encoder = encoder_of(num_layers, combination=combination)
    depths = torch.randn(num_layers + 1, 5, SIZE, dtype=torch.float64)
    combined, rows = RunningCombination(encoder), torch.empty(5, SIZE, dtype=torch.float64)
    for depth in depths:
        combined.add(rows.copy_(depth))
    assert_close(combined.rows, encoder.combine(depths))
