"""The loss of a step against a direct computation over all its seeds and negatives."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from dist_gat.config.model_sections import DecoderConfig
from dist_gat.config.sections import LossConfig, NegativesConfig
from dist_gat.exchange.channel import Channel
from dist_gat.nn.decoder import Decoder
from dist_gat.sampling.batch import Batch
from dist_gat.tasks.ranking import loss_terms
from dist_gat.tasks.ranking_seeds import Candidates, RankingSeeds

NOTHING = torch.zeros(0, dtype=torch.int64)


def batch_of(users: list[int], items: list[int], shared: list[int], own: list[list[int]], in_batch: bool) -> Batch:
    """A batch whose node IDs are also their positions, with expected counts that depend on the item.

    Shared negatives and, where `in_batch`, positives are candidates; the row of each item is offered once.
    """
    item_B, shared_N = torch.tensor(items, dtype=torch.int64), torch.tensor(shared, dtype=torch.int64)
    own_BK = torch.tensor(own, dtype=torch.int64).reshape(len(items), len(own[0]) if own else 2)
    item_C = torch.cat([shared_N, item_B]) if in_batch else shared_N
    drawn_C, num_drawn_C = item_C.unique(return_counts=True)
    return Batch(
        epoch=0,
        step=0,
        num_global_seeds=len(users),
        num_edges=0,
        nodes_U=NOTHING,
        blocks=[],
        seeds=RankingSeeds(
            user_at_B=torch.tensor(users, dtype=torch.int64),
            item_at_B=item_B,
            shared_at_N=shared_N,
            own_at_BK=own_BK,
            item_B=item_B,
            own_BK=own_BK,
            log_count_BK=count_of(own_BK).log(),
            candidates=Candidates(drawn_C, (len(drawn_C),), drawn_C, num_drawn_C, count_of(drawn_C).log()),
        ),
    )


def count_of(items: torch.Tensor) -> torch.Tensor:
    return 0.1 * (items + 1).double()


ROWS = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(loss: LossConfig, negatives: NegativesConfig) -> dict[str, float]:
    decoder = Decoder(DecoderConfig(kind="dot"))
    batch = batch_of([0, 1], [3, 4], [5, 3, 6], [[4, 7], [5, 4]], negatives.in_batch)
    terms = loss_terms(ROWS, ROWS, batch, decoder, loss, negatives, Channel("test"))
    return {name: float(term) for name, term in terms.items()}


@pytest.mark.parametrize("log_q", [True, False])
def test_softmax_pools_all_negatives_and_masks_accidental_hits(log_q: bool) -> None:
    negatives = NegativesConfig(num_shared=3, num_per_seed=2, in_batch=True)
    expected = 0.0
    for user, item, own in ((0, 3, [4, 7]), (1, 4, [5, 4])):
        total = math.exp(float(ROWS[user] @ ROWS[item]))
        for negative in [5, 3, 6, 3, 4, *own]:
            if negative != item:
                weight = 1.0 / float(count_of(torch.tensor(negative))) if log_q else 1.0
                total += weight * math.exp(float(ROWS[user] @ ROWS[negative]))
        expected += (math.log(total) - float(ROWS[user] @ ROWS[item])) / 2
    assert loss_of(LossConfig(kind="softmax", log_q=log_q), negatives) == pytest.approx({"softmax": expected})


def test_bpr_averages_over_valid_negatives() -> None:
    expected = 0.0
    for user, item, own in ((0, 3, [4, 7]), (1, 4, [5])):
        margins = [float(ROWS[user] @ (ROWS[item] - ROWS[negative])) for negative in own]
        expected += sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins) / 2
    negatives = NegativesConfig(num_shared=0, num_per_seed=2)
    assert loss_of(LossConfig(kind="bpr"), negatives) == pytest.approx({"bpr": expected})


def test_l2_is_half_the_mean_squared_norm_of_the_seeds_rows() -> None:
    terms = loss_of(LossConfig(kind="bpr", l2=0.3), NegativesConfig(num_shared=0, num_per_seed=2))
    nodes = [0, 1, 3, 4, 5, 3, 6, 4, 7, 5, 4]
    expected = 0.3 * sum(float(ROWS[node].square().sum()) for node in nodes) / 4
    assert terms["l2"] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["softmax", "bpr"])
def test_a_rank_without_seeds_has_no_loss_but_takes_part(kind: Any) -> None:
    negatives = NegativesConfig(num_shared=3, num_per_seed=2, in_batch=True)
    rows = ROWS.clone().requires_grad_()
    batch = dataclasses.replace(batch_of([], [], [5, 3, 6], [], True), num_global_seeds=4)
    decoder, channel = Decoder(DecoderConfig(kind="dot")), Channel("test")
    terms = loss_terms(rows, rows, batch, decoder, LossConfig(kind=kind), negatives, channel)
    terms[kind].backward()
    assert terms[kind] == 0
    assert (rows.grad == 0).all()


def test_bpr_counts_an_item_as_often_as_it_was_drawn() -> None:
    expected = 0.0
    for user, item in ((0, 3), (1, 4)):
        negatives = [negative for negative in [5, 3, 6, 3, 4] if negative != item]
        margins = [float(ROWS[user] @ (ROWS[item] - ROWS[negative])) for negative in negatives]
        expected += sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins) / 2
    found = loss_of(LossConfig(kind="bpr"), NegativesConfig(num_shared=3, in_batch=True))
    assert found == pytest.approx({"bpr": expected})
