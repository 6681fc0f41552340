import pytest
import torch
from torch.testing import assert_close

from dist_gat.config import DecoderConfig
from dist_gat.nn.decoder import Decoder

CONFIGS = [DecoderConfig(), DecoderConfig(kind="cosine", temperature=0.2)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_all_shapes_give_the_same_score(config):
    torch.manual_seed(0)
    decoder, users, items = Decoder(config), torch.randn(3, 5), torch.randn(4, 5)
    scores_BN = decoder.cross_scores(users, items)
    if config.kind == "dot":
        assert_close(scores_BN, users @ items.T)
    else:
        assert_close(scores_BN, torch.cosine_similarity(users[:, None], items[None], dim=2) / 0.2)
    assert_close(decoder.pair_scores(users, items[:3]), scores_BN.diagonal())
    own_BK = torch.tensor([[0, 3], [1, 1], [2, 0]])
    assert_close(decoder.per_user_scores(users, items[own_BK]), scores_BN.gather(1, own_BK))
    ranking_BN = decoder.ranking_rows(users) @ decoder.ranking_rows(items).T
    assert (ranking_BN.argsort(dim=1) == scores_BN.argsort(dim=1)).all()


def test_the_temperature_is_of_cosine_alone():
    users, items = torch.rand(3, 5), torch.rand(4, 5)
    assert_close(Decoder(DecoderConfig(temperature=0.5)).cross_scores(users, items), users @ items.T)


def test_cosine_of_a_zero_row_is_zero_with_finite_gradient():
    rows = torch.zeros(2, 5, requires_grad=True)
    scores = Decoder(CONFIGS[1]).pair_scores(rows, torch.ones(2, 5))
    scores.sum().backward()
    assert (scores == 0).all()
    assert rows.grad.isfinite().all()


def test_no_pairs():
    decoder = Decoder(CONFIGS[1])
    assert decoder.cross_scores(torch.zeros(0, 5), torch.rand(4, 5)).shape == (0, 4)
    assert decoder.per_user_scores(torch.zeros(0, 5), torch.zeros(0, 2, 5)).shape == (0, 2)
    assert decoder.pair_scores(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
