"""`Blend`: closed-form scores beside the model's, with weights that validation chooses.

score(u, i) = z_u · z_i + w_s spectral(u, i) + w_l linear(u, i), with the filters of `spectral_filter` and
`linear_filter` on the training graph, whose edges may have weights: see `history_weights`. The model sees features and
attention, the filters every interaction at once.

Shape legend: O own nodes, R representation size, k spectral rank, j deflated directions, n sampled users of a part,
m items of a block, N nodes, C choices of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from dist_gat.base.pairs import pairs_of
from dist_gat.config.sections import BlendConfig, EvaluateConfig
from dist_gat.evaluate.full_ranking import PartRanking, item_blocks, rank_representations, sum_of_parts
from dist_gat.evaluate.metrics import find_hits, metric_names, user_metrics
from dist_gat.evaluate.topk import Known, RunningTopK, known_items
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.route import share_rows
from dist_gat.exchange.worker import Worker
from dist_gat.filters.history_weights import HistoryWeights, history_weights
from dist_gat.filters.linear_filter import FILTER_BLOCK, LinearFilter, LinearTerm, deflation_rows
from dist_gat.filters.own_neighbors import OwnNeighbors, weighted_neighbors
from dist_gat.filters.spectral_filter import SpectralFilter
from dist_gat.filters.user_items import training_items
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

# weights to try, in units in which each filter's scores vary as much as the model's
SPECTRAL_CHOICES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
LINEAR_CHOICES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
# where deflation leaves less than this share of the linear filter's deviation, it leaves rounding errors
ROUNDING = 1e-3


@dataclass(frozen=True)
class Blend:
    """spectral_Ok, deflation_Oj: unweighted rows of this rank's nodes; k and j may be 0. linear: None where it is off.

    scale_O1: d^-¼ of nodes, with which the spectral filter scales items; None without one. A filter of weight 0 adds
    nothing to the model's score. half_life: of the edges of both filters. value: the metric
    with the blend, of the users by whom validation chose it; None where it didn't.
    """

    spectral_Ok: Tensor
    deflation_Oj: Tensor
    linear: LinearFilter | None
    spectral_weight: float = 0.0
    linear_weight: float = 0.0
    half_life: float | None = None
    value: float | None = None
    scale_O1: Tensor | None = None

    @property
    def weights(self) -> dict[str, float]:
        return {"spectral": self.spectral_weight, "linear": self.linear_weight}

    @property
    def weighted_rows(self) -> Tensor:
        """[O, up to k + j]: rows whose inner products are w_s spectral(u, i) plus the deflation of w_l linear(u, i)."""
        pairs = ((self.spectral_Ok, self.spectral_weight), (self.deflation_Oj, self.linear_weight))
        kept = [rows * weight**0.5 for rows, weight in pairs if weight]
        return torch.cat(kept, dim=1) if kept else self.spectral_Ok[:, :0]

    def rank(
        self,
        rows_OR: Tensor,
        store: GraphStore,
        worker: Worker,
        relation: Relation,
        split: str,
        config: EvaluateConfig,
        users: Mapping[int, np.ndarray],
        among: np.ndarray | None = None,
    ) -> list[PartRanking]:
        """The best items of `users` of this rank's parts. among: see `rank_parts`. Collective."""
        weighted = self.weighted_rows
        rows = torch.cat([rows_OR, weighted.to(rows_OR)], dim=1) if weighted.shape[1] else rows_OR
        terms = []
        if self.linear is not None and self.linear_weight:
            terms.append(LinearTerm(self.linear, self.linear_weight, store, relation))
        return rank_representations(rows, store, worker, relation, split, config, users, terms, among)


def build_blend(
    rows_OR: Tensor, store: GraphStore, worker: Worker, relation: Relation, config: BlendConfig,
    evaluate: EvaluateConfig, metric: str, seed: int,
) -> Blend:  # fmt: skip
    """The filters of the training graph, with the configured weights or those that are best on validation. Collective.

    rows_OR: the model's ranking rows. Without validation pairs, a weight that is not configured is 0, and the first of
    several half-lives holds.
    """
    can_choose = store.prepared.num_pairs(relation, "valid") > 0
    half_lives = config.half_lives if can_choose else config.half_lives[:1]
    is_set = config.spectral_weight is not None and config.linear_weight is not None
    filters = _Filters(store, worker, relation, config, evaluate.edge_chunk, seed)
    best: Blend | None = None
    for half_life in half_lives:
        blend = filters.with_half_life(half_life)
        if not can_choose or not (filters.has_spectral or filters.has_linear) or (is_set and len(half_lives) == 1):
            return blend
        tuner = _Tuner(blend, rows_OR, store, worker, relation, evaluate, config.num_users, seed)
        value, spectral_weight, linear_weight = tuner.best(metric, (config.spectral_weight, config.linear_weight))
        if best is None or best.value is None or value > best.value:
            best = replace(blend, spectral_weight=spectral_weight, linear_weight=linear_weight, value=value)
    assert best is not None, "there is one half-life or more"
    return best


class _Filters:
    """The filters with the configured weights, 0 where there is none, for any half-life. Collective."""

    def __init__(
        self, store: GraphStore, worker: Worker, relation: Relation, config: BlendConfig, edge_chunk: int, seed: int
    ) -> None:
        self.store, self.worker, self.relation, self.config = store, worker, relation, config
        self.edge_chunk, self.seed = edge_chunk, seed
        # a filter that shall have the weight 0 is not built
        is_set = config.spectral_weight is not None and config.linear_weight is not None
        self.has_spectral = config.spectral_rank > 0 and not (is_set and config.spectral_weight == 0)
        self.has_linear = config.linear and not (is_set and config.linear_weight == 0)
        # else all messages are along this relation, and they are the edges of the filters, each counting 1
        several = max(store.prepared.schema.slots) > 1
        self.has_own_edges = config.reads_weights or several or not relation.messages
        self.spectral: SpectralFilter | None = None
        if self.has_spectral:
            neighbors = self._neighbors(self._weights(None)) if self.has_own_edges else None
            self.spectral = SpectralFilter(
                store, worker, relation, config.spectral_rank, config.spectral_ridge, edge_chunk, seed, neighbors
            )

    def _weights(self, half_life: float | None) -> HistoryWeights:
        return history_weights(self.store.prepared.schema, self.relation, self.config, half_life)

    def _neighbors(self, weights: HistoryWeights) -> OwnNeighbors:
        return weighted_neighbors(training_items(self.store, weights), self.store, self.worker, self.relation)

    def with_half_life(self, half_life: float | None) -> Blend:
        store, worker, config, weights = self.store, self.worker, self.config, self._weights(half_life)
        spectral_Ok = deflation_Oj = torch.zeros(store.ownership.num_nodes, 0)
        linear, deflation = None, config.linear_deflation if self.has_linear else 0
        neighbors = None
        if (self.has_spectral and half_life is not None) or (deflation and self.has_own_edges):
            neighbors = self._neighbors(weights)
        if self.spectral is not None:
            spectral_Ok = self.spectral.rows(None if half_life is None else neighbors)
        if self.has_linear:
            ranges = store.ranges
            linear = LinearFilter(
                training_items(store, weights), ranges.num_parts, ranges.num_nodes, worker.steps, store.own_parts
            )
        if deflation:
            deflation_Oj = deflation_rows(
                store, worker, self.relation, deflation, self.edge_chunk, self.seed, neighbors
            )
        return Blend(
            spectral_Ok, deflation_Oj, linear, (config.spectral_weight or 0.0) * self.has_spectral,
            (config.linear_weight or 0.0) * self.has_linear, half_life,
            scale_O1=None if self.spectral is None else self.spectral.graph.scale_O1,
        )  # fmt: skip


def weights_to_try(
    choices: Sequence[float], model: float, deviation: float, given: float | None
) -> Sequence[float]:  # fmt: skip
    """The choices, in units in which a score of this deviation varies like the model's; or the given weight alone."""
    if not deviation:
        return (0.0,)
    return [choice * model / deviation for choice in choices] if given is None else (given,)


@dataclass(frozen=True)
class _Sample:
    """Users of a part with validation interactions: nodes int64 [n], rows by kind, what the linear filter has of them,
    known items.
    """

    part: int
    users: np.ndarray
    rows_nX: list[Tensor]
    profile_nN: csr_array | None
    known: Known


class _Tuner:
    """Tries all choices of weights in one pass over the items, for a sample of the users."""

    def __init__(
        self, blend: Blend, rows_OR: Tensor, store: GraphStore, worker: Worker, relation: Relation,
        config: EvaluateConfig, num_users: int, seed: int,
    ) -> None:  # fmt: skip
        self.blend, self.store, self.worker, self.relation, self.config = blend, store, worker, relation, config
        # of the model, the spectral filter, the linear one's deflation
        self.rows_OX = [rows_OR.float().cpu(), blend.spectral_Ok, blend.deflation_Oj]
        self.first_node = store.ownership.first_node
        # some of those that validation measures
        at_most = min(num_users, config.num_users or num_users)
        sample = sample_users(store.prepared, relation, "valid", store.own_parts, at_most, seed, worker.control)
        self.samples = [self._sample(part, users) for part, users in sample.users.items()]

    def _sample(self, part: int, users: np.ndarray) -> _Sample:
        # for validation, a user's known items are the training items alone
        known = known_items(users, [pairs_of(self.store.prepared.parts[part].pairs(self.relation, "train"), users)])
        at, profile_nN = torch.from_numpy(users - self.first_node), None
        if self.blend.linear is not None:
            first_user = self.store.ranges.nodes_of_type(part, self.relation.source).start
            profile_nN = self.blend.linear.kept[part][users - first_user]
        return _Sample(part, users, [rows.index_select(0, at) for rows in self.rows_OX], profile_nN, known)

    def blocks(self) -> Iterator[tuple[int, Tensor, csr_array | None]]:
        """(first item node, rows of the items side by side, columns of the linear filter). Collective."""
        rows_OX = torch.cat(self.rows_OX, dim=1)
        blocks = item_blocks(self.store.prepared, self.relation, FILTER_BLOCK)
        for first, last in self.worker.steps("weights of the blend", blocks, len(blocks)):
            start, stop = max(first - self.first_node, 0), max(last - self.first_node, 0)
            columns = None if self.blend.linear is None else self.blend.linear.columns(first, last)
            yield first, share_rows(rows_OX[start:stop].to(self.worker.rows.device), self.worker.rows).cpu(), columns

    def scores(self, sample: _Sample, rows: Tensor, columns_Nm: csr_array | None) -> np.ndarray:
        """float32 [4, n, m]: of the model, the spectral filter, the linear one and its deflation."""
        of_items = rows.split([kind.shape[1] for kind in self.rows_OX], dim=1)
        model, spectral, deflation = (
            (users @ items.T).numpy() for users, items in zip(sample.rows_nX, of_items, strict=True)
        )
        linear = np.zeros_like(model)
        if columns_Nm is not None and self.blend.linear is not None and sample.profile_nN is not None:
            linear = self.blend.linear.scores(sample.profile_nN, columns_Nm)
        return np.stack([model, spectral, linear, deflation])

    def deviations(self) -> np.ndarray:
        """float64 [4]: how much each score varies over the items of a user, as the root of the mean variance.

        Of the model, the spectral filter, the linear one alone, and with its deflation.
        """
        sums = {sample.part: np.zeros((2, 4, len(sample.users))) for sample in self.samples}
        for _, rows, columns in self.blocks():
            for sample in self.samples:
                scores = self.scores(sample, rows, columns).astype(np.float64)
                scores[3] += scores[2]
                sums[sample.part] += np.stack([scores.sum(axis=2), (scores**2).sum(axis=2)])
        variances = np.zeros((self.store.ranges.num_parts, 5))
        for part, (first, second) in sums.items():
            mean = first / max(self.store.ranges.count(self.relation.target), 1)
            variance = second / max(self.store.ranges.count(self.relation.target), 1) - mean**2
            variances[part] = [*np.maximum(variance, 0.0).sum(axis=1), first.shape[1]]
        *totals, count = sum_of_parts(variances, self.worker.control).tolist()
        return np.sqrt(np.array(totals) / max(count, 1))

    def best(self, metric: str, given: tuple[float | None, float | None]) -> tuple[float, float, float]:
        """The best mean of the metric, and the spectral and the linear weight that have it; of equal ones the smaller.

        Collective.
        """
        model, spectral, whole, linear = self.deviations().tolist()
        if linear < ROUNDING * whole:
            linear = 0.0
        choices = list(
            product(
                weights_to_try(SPECTRAL_CHOICES, model, spectral, given[0]),
                weights_to_try(LINEAR_CHOICES, model, linear, given[1]),
            )
        )
        k = max(self.config.ks)
        best = {s.part: [RunningTopK(len(s.users), k) for _ in choices] for s in self.samples}
        for first, rows, columns in self.blocks():
            for sample in self.samples:
                model_nm, spectral_nm, linear_nm, deflation_nm = self.scores(sample, rows, columns)
                linear_nm += deflation_nm
                for (w_s, w_l), ranked in zip(choices, best[sample.part], strict=True):
                    blended = model_nm + np.float32(w_s) * spectral_nm + np.float32(w_l) * linear_nm
                    ranked.merge(0, blended, first, sample.known)
        mean_C = self._means(best, metric)
        chosen = int(mean_C.argmax())
        return float(mean_C[chosen]), *choices[chosen]

    def _means(self, best: dict[int, list[RunningTopK]], metric: str) -> np.ndarray:
        """float64 [C]: the mean of the metric over the sampled users of all ranks. Collective."""
        column = metric_names(self.config.ks).index(metric)
        # the last column counts users
        sums = np.zeros((self.store.ranges.num_parts, len(next(iter(best.values()))) + 1))
        for sample in self.samples:
            truth = pairs_of(self.store.prepared.parts[sample.part].pairs(self.relation, "valid"), sample.users)
            for choice, ranked in enumerate(best[sample.part]):
                hits, num_relevant = find_hits(sample.users, ranked.items_UK, truth)
                sums[sample.part, choice] = user_metrics(hits, num_relevant, self.config.ks)[:, column].sum()
            sums[sample.part, -1] = len(sample.users)
        *totals, count = sum_of_parts(sums, self.worker.control)
        return np.array(totals) / max(count, 1)
