from itertools import product
from math import exp, log, log1p

import pytest
import torch
from torch.testing import assert_close

from dist_gat.tasks.ranking_loss import GROUP_NUMBERS, bpr_loss, sampled_softmax_loss


def test_bpr_is_the_mean_over_valid_negatives():
    pos_B, neg_BN = torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 3.0, -1.0], [2.0, 50.0, 0.0]])
    valid_BN = torch.tensor([[True, True, True], [True, False, False]])
    first = (log1p(exp(-0.5)) + log1p(exp(2.0)) + log1p(exp(-2.0))) / 3
    assert_close(bpr_loss(pos_B, neg_BN, valid_BN), torch.tensor([first, log(2)]))


def test_softmax_with_all_other_items_is_cross_entropy():
    torch.manual_seed(0)
    scores_BN, target_B = torch.randn(4, 7), torch.tensor([0, 3, 6, 3])
    valid_BN = torch.ones_like(scores_BN, dtype=torch.bool).scatter_(1, target_B[:, None], False)
    pos_B = scores_BN.gather(1, target_B[:, None])[:, 0]
    expected_B = torch.nn.functional.cross_entropy(scores_BN, target_B, reduction="none")
    assert_close(sampled_softmax_loss(pos_B, scores_BN, valid_BN), expected_B)


def test_the_partition_estimate_is_unbiased():
    """Mean over all draws of 2 negatives from q, weighted by their probability, is the sum over all negatives."""
    q_N = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    scores_N = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    pos_1, mean = torch.tensor([0.7], dtype=torch.float64), 0.0
    for draw in product(range(3), repeat=2):
        picked = list(draw)
        valid_BN = torch.ones(1, 2, dtype=torch.bool)
        loss_B = sampled_softmax_loss(pos_1, scores_N[picked][None], valid_BN, -(2 * q_N[picked]).log())
        mean += q_N[picked].prod() * ((loss_B + pos_1).exp() - pos_1.exp())
    assert_close(mean, scores_N.exp().sum()[None])


@pytest.mark.parametrize("loss", [bpr_loss, sampled_softmax_loss])
def test_masked_negatives_have_no_effect(loss):
    pos_B, neg_BN = torch.tensor([0.2, 0.4]), torch.tensor([[1.0, torch.inf], [2.0, -torch.inf]], requires_grad=True)
    valid_BN = torch.tensor([[True, False], [True, False]])
    loss_B = loss(pos_B, neg_BN, valid_BN)
    assert_close(loss_B, loss(pos_B, neg_BN[:, :1], valid_BN[:, :1]))
    loss_B.sum().backward()
    assert (neg_BN.grad[:, 1] == 0).all()
    assert neg_BN.grad.isfinite().all()


@pytest.mark.parametrize("loss", [bpr_loss, sampled_softmax_loss])
@pytest.mark.parametrize(("num_seeds", "num_negatives"), [(0, 3), (2, 0), (2, 3), (0, 0)])
def test_no_seeds_or_no_valid_negatives(loss, num_seeds, num_negatives):
    pos_B = torch.randn(num_seeds, requires_grad=True)
    neg_BN = torch.randn(num_seeds, num_negatives, requires_grad=True)
    loss_B = loss(pos_B, neg_BN, torch.zeros(num_seeds, num_negatives, dtype=torch.bool))
    loss_B.sum().backward()
    assert_close(loss_B, torch.zeros(num_seeds))
    assert (pos_B.grad == 0).all()
    assert (neg_BN.grad == 0).all()


@pytest.mark.parametrize("log_weight", ["none", "one row", "a row a seed"])
@pytest.mark.parametrize("num_negatives", [1, 5, GROUP_NUMBERS // 3, 2 * GROUP_NUMBERS])
def test_softmax_and_its_gradient_are_those_of_tensor_operations(log_weight: str, num_negatives: int) -> None:
    """In groups of several rows with a remainder, of one row, and of all."""
    generator = torch.Generator().manual_seed(num_negatives)
    pos_B = torch.randn(7, dtype=torch.float64, generator=generator).requires_grad_()
    neg_BN = (5 * torch.randn(7, num_negatives, dtype=torch.float64, generator=generator)).requires_grad_()
    valid_BN = torch.rand(7, num_negatives, generator=generator) < 0.8
    log_weight_BN = torch.randn(1 if log_weight == "one row" else 7, num_negatives, generator=generator).double()
    corrected_BN = neg_BN if log_weight == "none" else neg_BN + log_weight_BN
    all_BN = torch.cat([pos_B[:, None], corrected_BN.masked_fill(~valid_BN, -torch.inf)], dim=1)
    expected_B = all_BN.logsumexp(dim=1) - pos_B
    loss_B = sampled_softmax_loss(pos_B, neg_BN, valid_BN, None if log_weight == "none" else log_weight_BN)
    assert_close(loss_B, expected_B)
    weight_B = torch.randn(7, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad((x * weight_B).sum(), [pos_B, neg_BN]) for x in (expected_B, loss_B)]
    assert_close(gradients[1], gradients[0])
