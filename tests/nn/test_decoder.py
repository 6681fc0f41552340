import pytest
import torch
from torch.testing import assert_close

from dist_gat.config.model_sections import DecoderConfig
from dist_gat.nn.decoder import Decoder

CONFIGS = [DecoderConfig(), DecoderConfig(kind="cosine", temperature=0.2)]
POPULARITY = [config.model_copy(update={"popularity": True}) for config in CONFIGS]


@pytest.mark.parametrize("config", [*CONFIGS, *POPULARITY], ids=lambda c: f"{c.kind}-{c.popularity}")
def test_all_shapes_give_the_same_score(config):
    torch.manual_seed(0)
    decoder, users, items = Decoder(config), torch.randn(3, 5), torch.randn(4, 5)
    scores_BN = decoder.cross_scores(users, items)
    size = 4 if config.popularity else 5
    own, other = users[:, :size], items[:, :size]
    expected = (
        own @ other.T if config.kind == "dot" else torch.cosine_similarity(own[:, None], other[None], dim=2) / 0.2
    )
    assert_close(scores_BN, expected + items[:, 4] if config.popularity else expected)
    assert_close(decoder.pair_scores(users, items[:3]), scores_BN.diagonal())
    own_BK = torch.tensor([[0, 3], [1, 1], [2, 0]])
    assert_close(decoder.per_user_scores(users, items[own_BK]), scores_BN.gather(1, own_BK))
    ranking_BN = decoder.ranking_rows(own) @ decoder.ranking_rows(other).T
    assert_close(ranking_BN, expected * decoder.temperature)


def test_the_temperature_is_of_cosine_alone():
    users, items = torch.rand(3, 5), torch.rand(4, 5)
    assert_close(Decoder(DecoderConfig(temperature=0.5)).cross_scores(users, items), users @ items.T)


def test_cosine_of_a_zero_row_is_zero_with_finite_gradient():
    rows = torch.zeros(2, 5, requires_grad=True)
    scores = Decoder(CONFIGS[1]).pair_scores(rows, torch.ones(2, 5))
    scores.sum().backward()
    assert (scores == 0).all()
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("config", [CONFIGS[1], POPULARITY[1]])
def test_no_pairs(config):
    decoder = Decoder(config)
    assert decoder.cross_scores(torch.zeros(0, 5), torch.rand(4, 5)).shape == (0, 4)
    assert decoder.per_user_scores(torch.zeros(0, 5), torch.zeros(0, 2, 5)).shape == (0, 2)
    assert decoder.pair_scores(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
