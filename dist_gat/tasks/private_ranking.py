"""Ranking whose step adds up gradients of users, each cut to a norm, so that noise can hide any one of them.

A user u attends to own items N(u), T(u) are own items that are predicted, J negatives that no data chose. ID rows e of
items, the weights of what encodes their columns c, and those of the layer are shared; nothing else is.

    h_i = e_i + Σ_c φ_c(i) W_c                          an item is its row, and what its columns say, which are public

    z_u = Σ_{i in N(u)} α_ui W h_i + b                  what the attention layer makes of a user without a row
    L_u = mean over t in T(u) of -log softmax of z_u · (h_t + b) against z_u · (h_j + b), j in J without N(u), T(u)
    g_u = gradient of L_u by all ID rows and weights
    step: Σ_u g_u min(1, C / ||g_u||) / expected users, to which `GaussianNoise` adds its part

Gradients by users are exact and cost one backward pass: each user has copies of the rows of N(u) and T(u) and of the
weights. Rows of negatives have a gradient of rank one, (∂L_u/∂s_uj) z_u, whose norm and weighted sum need no copies.
Of the weights W_c no user has copies either, see `dist_gat.tasks.input_gradients`.

Shape legend: B users of this rank, F own items of a user, P predicted ones, N negatives, S nodes of the batch, E
embedding size, H heads, O output size of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.graph.schema import Relation
from dist_gat.nn.inputs.input_encoder import Factors
from dist_gat.nn.recommender import Recommender
from dist_gat.nn.scoring import AdditiveScoring, Scoring
from dist_gat.privacy.accountant import sampling_rate_of
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.negatives import NegativeSampler
from dist_gat.tasks.input_gradients import RowGradients, input_squares
from dist_gat.tasks.private_seeds import PrivateSeeds, PrivateSource
from dist_gat.tasks.ranking import RankingTask, build_ranking


@dataclass(frozen=True, kw_only=True)
class PrivateRankingTask(RankingTask):
    """A ranking that differs in training alone. batch_size: users of a step, as expected. rate, most: see
    `PrivateSource`. clip: C. seed: secret."""

    rate: float
    most: int
    clip: float

    def source(self, store: GraphStore) -> PrivateSource:  # type: ignore[override]
        negatives = NegativeSampler(store, self.relation, self.negatives, self.seed)
        return PrivateSource(store, self.relation, negatives, self.rate, self.batch_size, self.most, self.seed)

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        scoring: Any = model.encoder.layers[0].scoring
        assert batch.place_S is None, "one hop without times has each node once"
        input_SE = model.dense.input_rows(embedding_SE, batch.features, batch.has_id_U)
        factors = model.dense.inputs.factors(batch.features, len(input_SE))
        cut = clipped_gradients(scoring, user_inputs(input_SE.detach(), batch), self.clip, len(input_SE), factors)
        value = _WithGradient.apply(
            cut.loss_B.sum() / self.batch_size,
            [gradient / self.batch_size for gradient in (cut.rows_SE, *cut.weights)],
            input_SE,
            *scoring.parameters(),
        )
        return {"softmax": value}


def build_private_ranking(config: Config, relation: Relation) -> PrivateRankingTask:
    """config: whose seed is the run's secret one."""
    privacy, plain = config.privacy, build_ranking(config, relation)
    assert privacy is not None, "a private recipe"
    return PrivateRankingTask(
        **{field.name: getattr(plain, field.name) for field in fields(plain)},
        rate=sampling_rate_of(privacy, config.train.batch_size),
        most=privacy.max_interactions,
        clip=privacy.clip,
    )


class UserInputs(NamedTuple):
    """Input rows of items, and where among S they are from; masks are True where an entry is real.

    own_BFE, target_BPE, negative_NE: rows. own_at_BF, target_at_BP, negative_at_N: int64. is_met_BN: whether a negative
    is one of the user's own items or targets, so that it does not count. log_drawn_N: see `PrivateSeeds`.
    """

    own_BFE: Tensor
    own_at_BF: Tensor
    is_own_BF: Tensor
    target_BPE: Tensor
    target_at_BP: Tensor
    is_target_BP: Tensor
    negative_NE: Tensor
    negative_at_N: Tensor
    is_met_BN: Tensor
    log_drawn_N: Tensor


def user_inputs(embedding_SE: Tensor, batch: Batch) -> UserInputs:
    """What the losses of a batch's users read."""
    seeds, block = batch.seeds, batch.blocks[-1]
    assert isinstance(seeds, PrivateSeeds), "a batch of this task"
    own_at_BF, is_own_BF = block.neighbors_DF[seeds.user_at_B], block.mask_DF()[seeds.user_at_B]
    target_at_BP, negative_at_N = seeds.target_at_BP, seeds.negative_at_N
    is_target_BP = torch.arange(target_at_BP.shape[1], device=target_at_BP.device) < seeds.num_targets_B[:, None]
    # the sampler hides what is predicted; a row in both roles would make the norm of its gradient wrong
    is_twice_BFP = (own_at_BF[:, :, None] == target_at_BP[:, None, :]) & is_target_BP[:, None, :]
    is_own_BF = is_own_BF & ~is_twice_BFP.any(dim=2)
    num_negatives = len(negative_at_N)
    # of each node its number among the negatives; of others, and of padding, one behind the last
    number_S = negative_at_N.new_full((len(embedding_SE),), num_negatives)
    number_S[negative_at_N] = torch.arange(num_negatives, device=number_S.device)
    is_met_BN = torch.zeros(len(own_at_BF), num_negatives + 1, dtype=torch.bool, device=number_S.device)
    for at, is_real in ((own_at_BF, is_own_BF), (target_at_BP, is_target_BP)):
        is_met_BN.scatter_(1, number_S[at].masked_fill(~is_real, num_negatives), True)
    return UserInputs(
        functional.embedding(own_at_BF, embedding_SE), own_at_BF, is_own_BF,
        functional.embedding(target_at_BP, embedding_SE), target_at_BP, is_target_BP,
        functional.embedding(negative_at_N, embedding_SE), negative_at_N, is_met_BN[:, :-1],
        seeds.log_drawn_N.to(embedding_SE.dtype),
    )  # fmt: skip


class ClippedGradients(NamedTuple):
    """rows_SE: of the nodes' input rows, weights: of the layer's; both are sums over users of gradients cut to the norm
    C. norm_B: of each user's gradient by all that is shared, before it was cut. loss_B: L_u."""

    rows_SE: Tensor
    weights: list[Tensor]
    norm_B: Tensor
    loss_B: Tensor


def clipped_gradients(
    scoring: Scoring, inputs: UserInputs, clip: float, num_nodes: int, factors: Sequence[Factors] = ()
) -> ClippedGradients:
    """See the module. scoring: of the layer, `additive` or `uniform`. num_nodes: S. factors: of each encoder of
    columns, see `NodeInputs.factors`."""
    num_users = len(inputs.own_BFE)
    weights = dict(scoring.named_parameters())
    copies = {name: copied(weight, num_users) for name, weight in weights.items()}
    own_BFE, target_BPE = inputs.own_BFE.requires_grad_(), inputs.target_BPE.requires_grad_()
    with torch.enable_grad():
        user_BE = user_rows(scoring, copies, own_BFE, inputs.is_own_BF)
        score_BN = user_BE @ inputs.negative_NE.T
        loss_B = user_losses(user_BE, score_BN, copies.get("bias"), target_BPE, inputs)
        leaves = [own_BFE, target_BPE, score_BN, *copies.values()]
        found = torch.autograd.grad(loss_B.sum(), leaves, allow_unused=True)
    gradients = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]
    own_BFE, target_BPE, score_BN, *weights_B = gradients
    user_BE = user_BE.detach()
    square_B = sum(one.flatten(1).square().sum(dim=1) for one in (own_BFE, target_BPE, *weights_B))
    square_B = square_B + score_BN.square().sum(dim=1) * user_BE.square().sum(dim=1)
    at_BR, rows_BRE = (
        torch.cat(both, dim=1) for both in ((inputs.own_at_BF, inputs.target_at_BP), (own_BFE, target_BPE))
    )
    square_B = square_B + input_squares(factors, RowGradients(at_BR, rows_BRE, inputs.negative_at_N, score_BN, user_BE))
    norm_B = square_B.sqrt()
    scale_B = clip / norm_B.clamp(min=clip)
    rows_SE = own_BFE.new_zeros(num_nodes, own_BFE.shape[-1])
    for at, rows in ((inputs.own_at_BF, own_BFE), (inputs.target_at_BP, target_BPE)):
        # padding has no gradient
        rows_SE.index_add_(0, at.flatten(), (rows * scale_B[:, None, None]).flatten(0, 1))
    rows_SE.index_add_(0, inputs.negative_at_N, (score_BN * scale_B[:, None]).T @ user_BE)
    summed = [torch.tensordot(scale_B, one, dims=1) for one in weights_B]
    return ClippedGradients(rows_SE, summed, norm_B, loss_B.detach())


def copied(weight: Tensor, num_users: int) -> Tensor:
    """[B, …]: one copy a user, for a gradient a user; no memory of its own."""
    return weight.detach().expand(num_users, *weight.shape).requires_grad_()


def user_rows(scoring: Scoring, weights: Mapping[str, Tensor], own_BFE: Tensor, is_own_BF: Tensor) -> Tensor:
    """[B, E]: what an `AttentionLayer` with this scoring makes of users without rows of their own.

    weights: by name, [B, …].
    """
    if not isinstance(scoring, AdditiveScoring):
        share_BF = is_own_BF.to(own_BFE.dtype) / is_own_BF.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bf,bfe->be", share_BF, own_BFE)
    source_BHO = weights["source_HO"]
    value_BHOE = weights["value.weight"].unflatten(1, source_BHO.shape[1:])
    source_BHE = torch.einsum("bho,bhoe->bhe", source_BHO, value_BHOE)
    logit_BFH = functional.leaky_relu(own_BFE @ source_BHE.mT, scoring.negative_slope)
    padding_BF1 = ~is_own_BF[:, :, None]
    share_BFH = logit_BFH.masked_fill(padding_BF1, torch.finfo(logit_BFH.dtype).min).softmax(dim=1)
    sums_BHE = share_BFH.masked_fill(padding_BF1, 0.0).mT @ own_BFE
    return torch.einsum("bhoe,bhe->bho", value_BHOE, sums_BHE).flatten(1) + weights["bias"]


def user_losses(
    user_BE: Tensor, score_BN: Tensor, bias_BE: Tensor | None, target_BPE: Tensor, inputs: UserInputs
) -> Tensor:
    """[B]: L_u. score_BN: z_u · h_j. bias_BE: what the layer adds to the row of each item, None: nothing."""
    own_score_B1 = 0.0 if bias_BE is None else (user_BE * bias_BE).sum(dim=1, keepdim=True)
    target_BP = torch.einsum("be,bpe->bp", user_BE, target_BPE) + own_score_B1
    score_BN = score_BN + own_score_B1 + inputs.log_drawn_N
    rest_B1 = score_BN.masked_fill(inputs.is_met_BN, torch.finfo(score_BN.dtype).min).logsumexp(dim=1, keepdim=True)
    loss_BP = functional.softplus(rest_B1 - target_BP).masked_fill(~inputs.is_target_BP, 0.0)
    return loss_BP.sum(dim=1) / inputs.is_target_BP.sum(dim=1).clamp(min=1)


class _WithGradient(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *inputs: nn.Parameter) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * one for one in ctx.saved_tensors)
