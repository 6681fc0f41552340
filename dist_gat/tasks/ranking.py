"""The loss of one global step: this rank's share of a mean over the seeds of all ranks.

Shape legend: B seeds of this rank, C candidates that all ranks share, K own negatives, N negatives of a seed, M rows
that the ranks offer each other, R representation size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from dist_gat.config.sections import LossConfig, NegativesConfig
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import share_rows
from dist_gat.nn.decoder import Decoder
from dist_gat.sampling.batch import Batch
from dist_gat.tasks.ranking_loss import bpr_loss, sampled_softmax_loss


def loss_terms(
    rows_NR: Tensor,
    embedding_SE: Tensor,
    batch: Batch,
    decoder: Decoder,
    loss: LossConfig,
    negatives: NegativesConfig,
    channel: Channel,
) -> dict[str, Tensor]:
    """The terms whose sum, added over the ranks, is the step's loss. Collective.

    rows_NR: representations of the batch's seed nodes; embedding_SE: the rows that the lookup returned.
    """
    # as embeddings, which are several times as fast as subscripts, in both directions, and deterministic on a GPU
    user_BR, item_BR = embedding(batch.user_at_B, rows_NR), embedding(batch.item_at_B, rows_NR)
    scores, items, num_drawn, log_counts = [], [], [], []
    if negatives.num_shared or negatives.in_batch:
        candidates = batch.candidates
        offered_CR = share_rows(embedding(candidates.offered_at_M, rows_NR), channel, candidates.offered_counts)
        scores.append(decoder.cross_scores(user_BR, offered_CR))
        items.append(candidates.item_C[None])
        num_drawn.append(candidates.num_drawn_C[None])
        log_counts.append(candidates.log_count_C[None])
    if negatives.num_per_seed:
        scores.append(decoder.per_user_scores(user_BR, embedding(batch.own_at_BK, rows_NR)))
        items.append(batch.own_BK)
        num_drawn.append(batch.log_count_BK.new_ones(1, batch.own_BK.shape[1]))
        log_counts.append(batch.log_count_BK)
    num_seeds = len(user_BR)
    neg_BN = side_by_side(scores, num_seeds)
    valid_BN = side_by_side([item_BN != batch.item_B[:, None] for item_BN in items], num_seeds)
    num_drawn_BN = side_by_side(num_drawn, num_seeds).to(neg_BN.dtype)
    pos_B = decoder.pair_scores(user_BR, item_BR)
    if loss.kind == "bpr":
        loss_B = bpr_loss(pos_B, neg_BN, valid_BN * num_drawn_BN)
    else:
        log_weight_BN = num_drawn_BN.log()
        if loss.log_q:
            log_weight_BN = log_weight_BN - side_by_side(log_counts, num_seeds).to(neg_BN.dtype)
        loss_B = sampled_softmax_loss(pos_B, neg_BN, valid_BN, log_weight_BN)
    terms: dict[str, Tensor] = {loss.kind: loss_B.sum() / batch.num_global_seeds}
    if loss.l2:
        seeds = torch.cat([batch.user_at_B, batch.item_at_B, batch.shared_at_N, batch.own_at_BK.flatten()])
        terms["l2"] = loss.l2 * embedding_SE[seeds].square().sum() / (2 * batch.num_global_seeds)
    return terms


def side_by_side(parts: list[Tensor], num_seeds: int) -> Tensor:
    """[B, N]: the columns of all parts, where a part may have one row for all seeds; one part is returned as it is."""
    return parts[0] if len(parts) == 1 else torch.cat([part.expand(num_seeds, -1) for part in parts], dim=1)
