"""How much a destination attends to each of its sampled neighbours.

Shape legend: S sources, D destinations, F fan-out, H heads, I input size, O output size per head. Rows of a destination
u are h_u, rows of its neighbour i are l_i, N(u) are the sampled neighbours of u.

Attention costs what the destinations cost: whatever is linear in a neighbour's row is applied to the query
before the softmax, or to the aggregate z_u after it, so that (but for `additive_v2`) no source is projected.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.config.model_sections import AttentionConfig
from dist_gat.kernels.weighting import MAX_EXPONENT, MIN_SCORE_SUM, Rule, Weighting
from dist_gat.nn.edge_keys import EdgeKeys
from dist_gat.nn.edge_terms import PLAIN_KINDS, EdgeKinds, EdgeTerms, degrees_of_ends, edges_alike
from dist_gat.sampling.block import Block

KEY_NOISE = 0.1


def at_least_float32(scores: Tensor) -> Tensor:
    """Scores of mixed precision in float32: exponentials and sums of bfloat16 are too coarse."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def softmax_weights(logits_DFH: Tensor, block: Block) -> Tensor:
    """Softmax over the real neighbours, at least in float32; padding and rows without neighbours are exactly 0."""
    padding_DF1 = ~block.mask_DF()[:, :, None]
    logits_DFH = at_least_float32(logits_DFH)
    # Not -inf: the softmax of a row of padding alone would be NaN, and so its backward, before it is masked.
    lowest = torch.finfo(logits_DFH.dtype).min
    return logits_DFH.masked_fill(padding_DF1, lowest).softmax(dim=1).masked_fill(padding_DF1, 0.0)


def uniform_weights(block: Block, dtype: torch.dtype) -> Tensor:
    """1 / |N(u)| for the real neighbours, 0 for padding. Shape [D, F, 1]."""
    return block.mask_DF()[:, :, None].to(dtype) / block.count_D.clamp(min=1)[:, None, None]


def linear_weights(scores_DFH: Tensor, block: Block) -> Tensor:
    """alpha_ui = s_ui / sum_j s_uj, meant for scores that are not negative.

    A destination whose scores do not sum to a positive number attends uniformly. Where only some of its scores
    are negative their weights are negative too, and all weights still sum to 1.
    """
    scores_DFH = at_least_float32(scores_DFH).masked_fill(~block.mask_DF()[:, :, None], 0.0)
    total_D1H = scores_DFH.sum(dim=1, keepdim=True)
    usable_D1H = total_D1H > MIN_SCORE_SUM
    # The inner `where` keeps a division by zero out of the gradient of the branch that is not taken.
    alpha_DFH = scores_DFH / torch.where(usable_D1H, total_D1H, 1.0)
    return torch.where(usable_D1H, alpha_DFH, uniform_weights(block, scores_DFH.dtype))


def exp_logits(scores_DFH: Tensor) -> Tensor:
    """s exp(s), bounded: the exponent stops at `MAX_EXPONENT`, beyond which the softmax can't tell the difference."""
    scores_DFH = at_least_float32(scores_DFH)
    return scores_DFH * scores_DFH.clamp(max=MAX_EXPONENT).exp()


class Scoring(nn.Module):
    """Common interface: how to weigh neighbours before the aggregation, output transform after it.

    projects_sources: whether every row is projected, not only those of the block's edges.
    needs_degree: whether blocks must have `degree_SK`. terms, keys: of what edges carry, or None; keys are for
    scorings with a query.
    """

    projects_sources = False
    needs_degree = False

    def __init__(self) -> None:
        super().__init__()
        self.terms: EdgeTerms | None = None
        self.keys: EdgeKeys | None = None

    def edge_bias(self, block: Block, query_QHI: Tensor | None = None) -> Tensor | None:
        """What the edges carry adds to the logits, [D, F, H], or None."""
        terms_DFH = None if self.terms is None else self.terms(block)
        if self.keys is None or query_QHI is None:
            return terms_DFH
        keys_DFH = self.keys(query_QHI, block)
        return keys_DFH if terms_DFH is None else terms_DFH + keys_DFH

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        """The weighting of a block, from all rows and the destinations' own rows."""
        raise NotImplementedError

    def output(self, sums: Tensor, block: Block) -> Tensor:
        """rows_DO from what `attend` returned; here the only aggregate, without a projection."""
        return sums.squeeze(1)


class UniformScoring(Scoring):
    """alpha_ui = 1 / |N(u)|: the mean of the neighbours; with terms b_ui of the edges, their softmax."""

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        bias_DFH = self.edge_bias(block)
        if bias_DFH is None:
            return Weighting(Rule.GIVEN, uniform_weights(block, rows_SI.dtype))
        return Weighting(Rule.GIVEN, softmax_weights(bias_DFH, block), mean=True)


class DegreeScoring(Scoring):
    """alpha_ui = (d_u / |N(u)|) / sqrt(d_u d_i), d = in-degrees in the whole graph along the edge's relation.

    LightGCN (He et al. 2020) has 1 / sqrt(d_u d_i); the first factor makes the sum over a uniform sample an
    unbiased estimate of the sum over all neighbours, and is 1 where all of them are in the block. With several
    relations |N(u)| are the neighbours along the same one. With terms b_ui of the edges, the weights of u have the same
    sum, divided among the edges by the softmax of log alpha_ui + b_ui: where b is 0 they are alpha.
    """

    needs_degree = True

    def __init__(self, kinds: EdgeKinds) -> None:
        super().__init__()
        self.kinds = kinds

    def degree_weights(self, block: Block, dtype: torch.dtype) -> Tensor:
        """[D, F, 1], 0 for padding."""
        own_DF, near_DF = (degree.to(dtype) for degree in degrees_of_ends(block, self.kinds))
        return ((own_DF / near_DF).sqrt() / edges_alike(block, self.kinds) * block.mask_DF())[:, :, None]

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        weight_DF1, bias_DFH = self.degree_weights(block, rows_SI.dtype), self.edge_bias(block)
        if bias_DFH is None:
            return Weighting(Rule.GIVEN, weight_DF1)
        share_DFH = softmax_weights(log_weights(weight_DF1) + bias_DFH, block)
        return Weighting(Rule.GIVEN, share_DFH * weight_DF1.sum(dim=1, keepdim=True), mean=True)


class DegreeDotScoring(DegreeScoring):
    """`degree` with a bilinear term: the weights of u have the sum that `degree` gives them, divided among the edges by
    the softmax of log alpha_ui + h_u^T W_k l_i + b_ui for each head. W_k [H, I, I] starts at 0, so attention starts as
    `degree`. The heads' aggregates are averaged.
    """

    def __init__(self, config: AttentionConfig, in_size: int, kinds: EdgeKinds) -> None:
        super().__init__(kinds)
        self.key_HII = nn.Parameter(torch.zeros(config.num_heads, in_size, in_size))

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        query_DHI = torch.einsum("di,hij->dhj", own_DI, self.key_HII)
        bias_DFH, logit_DF1 = self.edge_bias(block, query_DHI), log_weights(self.degree_weights(block, rows_SI.dtype))
        bias_DFH = logit_DF1.expand(-1, -1, len(self.key_HII)) if bias_DFH is None else logit_DF1 + bias_DFH
        return Weighting(Rule.SOFTMAX, query_QHI=query_DHI, bias_DFH=bias_DFH, mean=True)

    def output(self, sums: Tensor, block: Block) -> Tensor:
        return sums.squeeze(1) * self.degree_weights(block, sums.dtype).sum(dim=1)


class DotScoring(Scoring):
    """Bilinear attention, projecting the query alone.

    s_ui = h_u^T W_k l_i for each head. alpha is the softmax of s over N(u) (dot), of s exp(s) (dot_exp), or
    s / sum s (normalization=linear). The heads' aggregates are averaged to z_u; with transform=mlp the output
    is LeakyReLU(z_u W_v) W_o. W_k [H, I, I] starts as the identity, so that attention starts as similarity;
    noise on it lets several heads diverge.
    """

    def __init__(self, config: AttentionConfig, in_size: int, out_size: int) -> None:
        super().__init__()
        self.rule = Rule.EXP if config.scoring == "dot_exp" else Rule.SOFTMAX
        if config.normalization == "linear":
            self.rule = Rule.LINEAR
        key_HII = torch.eye(in_size).repeat(config.num_heads, 1, 1)
        if config.num_heads > 1:
            key_HII += KEY_NOISE / math.sqrt(in_size) * torch.randn_like(key_HII)
        self.key_HII = nn.Parameter(key_HII)
        self.transform: nn.Module | None = None
        if config.transform == "mlp":
            hidden = nn.Linear(in_size, out_size, bias=False)
            activation = nn.LeakyReLU(config.negative_slope)
            self.transform = nn.Sequential(hidden, activation, nn.Linear(out_size, out_size, bias=False))

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        query_DHI = torch.einsum("di,hij->dhj", own_DI, self.key_HII)
        # The heads share the rows that they sum, so the mean of the weights is enough for the mean of the sums.
        return Weighting(self.rule, query_QHI=query_DHI, bias_DFH=self.edge_bias(block, query_DHI), mean=True)

    def output(self, sums: Tensor, block: Block) -> Tensor:
        z_DI = sums.squeeze(1)
        return z_DI if self.transform is None else self.transform(z_DI)


class AdditiveScoring(Scoring):
    """GAT (Velickovic et al. 2018), equal to `dgl.nn.GATConv`.

    e_ui = LeakyReLU(a_src^T W l_i + a_dst^T W h_u), alpha = softmax of e over N(u), and the output is
    sum_i alpha_ui W l_i + b, the heads' outputs side by side. Computed as (W^T a_src)^T l_i before the softmax
    and W z_u after it. W [H*O, I], a_src and a_dst [H, O], b [H*O].
    """

    def __init__(self, config: AttentionConfig, in_size: int, out_size: int) -> None:
        super().__init__()
        head_size = out_size // config.num_heads
        self.negative_slope = config.negative_slope
        self.value = nn.Linear(in_size, out_size, bias=False)
        self.source_HO = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.query_HO = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.bias = nn.Parameter(torch.zeros(out_size))
        for weight in (self.value.weight, self.source_HO, self.query_HO):
            nn.init.xavier_normal_(weight, gain=math.sqrt(2))

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        value_HOI = self.value.weight.unflatten(0, self.source_HO.shape)
        # a sum, because a matrix product would start threads for too little work
        source_HI, own_HI = ((value_HOI * x_HO[:, :, None]).sum(dim=1) for x_HO in (self.source_HO, self.query_HO))
        return Weighting(
            Rule.SOFTMAX,
            query_QHI=source_HI[None],
            own_HI=own_HI,
            bias_DFH=self.edge_bias(block, source_HI[None]),
            slope=self.negative_slope,
            value_XI=self.value.weight,
        )

    def output(self, sums: Tensor, block: Block) -> Tensor:
        return sums + self.bias


class AdditiveV2Scoring(Scoring):
    """GATv2 (Brody et al. 2022), equal to `dgl.nn.GATv2Conv`.

    e_ui = a^T LeakyReLU(W_s l_i + b_s + W_d h_u + b_d), alpha = softmax of e over N(u), and the output is
    sum_i alpha_ui (W_s l_i + b_s), the heads' outputs side by side. W_s and W_d [H*O, I], a [H, O]. The
    non-linearity stands between the source and the softmax, so here every source is projected.
    """

    projects_sources = True

    def __init__(self, config: AttentionConfig, in_size: int, out_size: int) -> None:
        super().__init__()
        self.negative_slope = config.negative_slope
        self.value = nn.Linear(in_size, out_size)
        self.query = nn.Linear(in_size, out_size)
        self.attention_HO = nn.Parameter(torch.empty(config.num_heads, out_size // config.num_heads))
        for weight in (self.value.weight, self.query.weight, self.attention_HO):
            nn.init.xavier_normal_(weight, gain=math.sqrt(2))
        for linear in (self.value, self.query):
            nn.init.zeros_(linear.bias)

    def weighting(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> Weighting:
        query_DX = self.query(own_DI)  # X = H*O
        if block.dst_at_D is None:
            near_DFX = functional.embedding(block.neighbors_DF, self.value(rows_SI))
        else:
            # gathered before the projection, because such a block has edges from few of its many sources
            near_DFX = self.value(functional.embedding(block.neighbors_DF, rows_SI))
        sum_DFX = near_DFX + query_DX[:, None]
        # One matrix product over all heads is faster than a product and a sum for each.
        attention_HX = torch.block_diag(*self.attention_HO)
        logits_DFH = functional.leaky_relu(sum_DFX, self.negative_slope) @ attention_HX.T
        bias_DFH = self.edge_bias(block)
        logits_DFH = logits_DFH if bias_DFH is None else logits_DFH + bias_DFH
        return Weighting(Rule.GIVEN, softmax_weights(logits_DFH, block), value_XI=self.value.weight)

    def output(self, sums: Tensor, block: Block) -> Tensor:
        # The bias is part of every message: a destination without neighbours receives none.
        bias_DX = (block.count_D > 0)[:, None] * self.value.bias
        return sums + bias_DX


def log_weights(weight_DF1: Tensor) -> Tensor:
    """Their logarithms, 0 for padding."""
    return at_least_float32(weight_DF1).clamp(min=torch.finfo(torch.float32).tiny).log() * (weight_DF1 > 0)


def build_scoring(config: AttentionConfig, in_size: int, out_size: int, kinds: EdgeKinds = PLAIN_KINDS) -> Scoring:
    """The scoring that `config.scoring` names, for a graph with these edge types."""
    scoring: Scoring
    if config.scoring in ("additive", "additive_v2"):
        assert out_size % config.num_heads == 0, "the heads share the output size evenly"
        kind = AdditiveScoring if config.scoring == "additive" else AdditiveV2Scoring
        scoring = kind(config, in_size, out_size)
    else:
        assert config.transform == "mlp" or in_size == out_size, "nothing in this layer changes the size of a row"
        if config.scoring in ("dot", "dot_exp"):
            scoring = DotScoring(config, in_size, out_size)
        elif config.scoring == "degree_dot":
            scoring = DegreeDotScoring(config, in_size, kinds)
        else:
            scoring = UniformScoring() if config.scoring == "uniform" else DegreeScoring(kinds)
    if config.terms:
        scoring.terms = EdgeTerms(config.terms, config.num_heads, kinds, config.weight_scale == "log")
        scoring.needs_degree = scoring.needs_degree or "degree" in config.terms
    if config.keys:
        scoring.keys = EdgeKeys(config.keys, in_size, kinds)
    return scoring
