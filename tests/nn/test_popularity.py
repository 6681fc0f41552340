import math

import torch
from torch.testing import assert_close

from dist_gat.nn.popularity import Popularity
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
