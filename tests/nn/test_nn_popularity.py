import math

import numpy as np
import torch
from torch.testing import assert_close

from dist_gat.config.sections import DecoderConfig, ModelConfig
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.ranges import ITEM
from dist_gat.nn.popularity import Popularity
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.graph_store import open_store
from dist_gat.tasks.ranking_loss import sampled_softmax_loss


def test_it_grows_with_the_logarithm_of_the_degree_and_starts_as_nothing():
    popularity, degree_N = Popularity(), torch.tensor([0, 1, 20])
    assert popularity(degree_N).tolist() == [0.0, 0.0, 0.0]
    with torch.no_grad():
        popularity.slope.fill_(0.5)
    assert_close(popularity(degree_N), torch.tensor([0.0, 0.5 * math.log(2), 0.5 * math.log(21)]))


def test_where_users_don_t_differ_the_softmax_finds_the_base_rate():
    """Items drawn in proportion to 1 + degree, and scores that are popularity alone: the best β is 1."""
    degree_I = torch.tensor([0, 1, 3, 9, 30, 100])
    share_I = (degree_I + 1.0) / (degree_I + 1.0).sum()
    popularity = Popularity()
    optimizer = torch.optim.LBFGS(popularity.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        score_I = popularity(degree_I)
        loss_I = sampled_softmax_loss(score_I, score_I.expand(6, 6), ~torch.eye(6, dtype=torch.bool))
        (loss := (share_I * loss_I).sum()).backward()
        return loss

    optimizer.step(closure)
    assert_close(popularity.slope.item(), 1.0, atol=1e-3, rtol=0)


def test_ranking_rows_add_the_popularity_of_items_and_of_no_other_node(synthetic: PreparedGraph):
    config = ModelConfig(embedding_size=6, decoder=DecoderConfig(kind="cosine", temperature=0.2, popularity=True))
    model = build_recommender(config, 2, {}, np.array([0, synthetic.ranges.num_nodes]), Channel("rows"), 0)
    with torch.no_grad():
        model.dense.popularity.slope.fill_(0.7)
    store, nodes = open_store(synthetic, Channel("sampling"), "auto"), np.arange(synthetic.ranges.num_nodes)
    representation_NR = torch.randn(len(nodes), 6, generator=torch.Generator().manual_seed(1))
    ranking_NR = model.ranking_rows(representation_NR, nodes, store)
    is_item = synthetic.ranges.type_of(nodes) == ITEM
    assert not ranking_NR.requires_grad
    degree = store.in_degree(nodes[is_item])
    cosine_UI = torch.cosine_similarity(
        representation_NR[~is_item][:, None], representation_NR[is_item][None], dim=2
    )  # fmt: skip
    expected_UI = cosine_UI / 0.2 + 0.7 * torch.from_numpy(np.log1p(degree)).float()
    assert_close(ranking_NR[~is_item] @ ranking_NR[is_item].T / 0.2, expected_UI, atol=1e-4, rtol=1e-4)
