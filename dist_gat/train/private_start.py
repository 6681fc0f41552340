"""What a private run begins with: item rows from two sums over users, each with noise that is added once.

counts   c_i = Σ_u 1 / √d_u over the users u who met item i, d_u being the number of u's items. One user's part has the
         L2 norm 1 at most.
pairs    p_ij = Σ_u √2 / k_u over the users who met both i and j, i < j, of the M items with the largest noised counts,
         k_u being how many of these u met. The norm of one user's part is √((k_u - 1) / k_u), below 1 (as in Dwork,
         Talwar, Thakurta and Zhang 2014, "Analyze Gauss", for users of norm 1).

Both are Gaussian mechanisms, the second chosen by the result of the first; the accountant composes them with the steps.
All else works on their results. The rows are

    h_i = [log max(c_i, floor), √(s M / λ_1) (√λ_1 v_1i, √λ_2 v_2i, …)]

with the leading eigenvalues and eigenvectors of p_ij / (c_i c_j)^¼, and rows of other items are 0 behind the count. The
layer begins as the mean of own rows without their first number, and 1 in its place: a user's score of an item is then
the log of its count, and s times how much the user's items were met by those who met it. Encoders of columns begin with
0, so that they add nothing to this; they are linear in their weights, which the first step moves all the same.

Sums are of integers, in units of 1 / 2^20, so that they are the same on any number of workers.

Shape legend: U users of this rank, I items, M items of the head, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from torch import nn

from dist_gat.config.privacy_section import PrivateStartConfig
from dist_gat.exchange.worker import Worker
from dist_gat.graph.schema import Relation
from dist_gat.nn.recommender import Recommender
from dist_gat.nn.scoring import AdditiveScoring
from dist_gat.privacy.noise import derived_key, normal_noise
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.train.private_run import PrivateRun

UNITS = 1 << 20
# of the counts that a pair is divided by: between the pairs themselves, 0, and their cosine, ½
POWER = 0.25
Total = Callable[[np.ndarray], np.ndarray]  # a sum over ranks


def noisy_counts(met_UI: csr_array, noise: float, key: bytes, total: Total) -> np.ndarray:
    """float64 [I]: c with noise. met_UI: int64, 1 where a user met an item."""
    degree_U = np.asarray(met_UI.sum(axis=1)).ravel()
    # rounded down, so that the norm of a user's part stays below 1
    part_U = np.floor(UNITS / np.sqrt(np.maximum(degree_U, 1))).astype(np.int64)
    count_I = total(met_UI.T @ part_U)
    return np.asarray(count_I / UNITS + noise * normal_noise(key, 0, 0, len(count_I), 1)[:, 0])


def noisy_pairs(met_UM: csr_array, noise: float, key: bytes, total: Total) -> np.ndarray:
    """float64 [M, M]: p / √2 with noise, symmetric, 0 on the diagonal."""
    degree_U, num_items = np.asarray(met_UM.sum(axis=1)).ravel(), met_UM.shape[1]
    part_U = np.floor(UNITS * sqrt(2) / np.maximum(degree_U, 1)).astype(np.int64)
    both_MM = total((met_UM.T @ (diags_array(part_U, dtype=np.int64) @ met_UM)).toarray().astype(np.int64))
    upper_MM = np.triu(both_MM / UNITS + noise * normal_noise(key, 0, 0, num_items, num_items), 1) / sqrt(2)
    return np.asarray(upper_MM + upper_MM.T)


def rows_of_counts(count_I: np.ndarray, floor: float, size: int) -> np.ndarray:
    """float64 [I, E]."""
    rows_IE = np.zeros((len(count_I), size))
    rows_IE[:, 0] = np.log(np.maximum(count_I, floor))
    return rows_IE


def rows_of_pairs(pairs_MM: np.ndarray, count_M: np.ndarray, size: int, strength: float) -> np.ndarray:
    """float64 [M, size]: of the directions with positive eigenvalues; others stay 0. count_M: at least the floor."""
    num_items = len(pairs_MM)
    scaled_MM = pairs_MM / np.outer(count_M, count_M) ** POWER
    taken = min(size, num_items)
    values, vectors = eigh(scaled_MM, subset_by_index=[num_items - taken, num_items - 1])
    rows_ME = np.zeros((num_items, size))
    if values[-1] > 0:
        share = np.maximum(values[::-1], 0) / values[-1]
        rows_ME[:, :taken] = vectors[:, ::-1] * np.sqrt(strength * num_items * share)
    return rows_ME


@torch.no_grad()
def start_private(
    model: Recommender, config: PrivateStartConfig, private: PrivateRun, store: GraphStore, relation: Relation,
    worker: Worker,
) -> None:  # fmt: skip
    """Set the rows of this rank's items and the weights of the layer. Collective."""
    table, plan, ranges = model.table.weight, private.plan, store.ranges
    all_items, own_items = (
        np.concatenate([np.array(ranges.nodes_of_type(part, relation.target), np.int64) for part in parts])
        for parts in (range(ranges.num_parts), store.own_parts)
    )

    def total(values: np.ndarray) -> np.ndarray:
        return worker.control.sum(torch.from_numpy(np.ascontiguousarray(values))).numpy()

    met_UI = own_met(store, relation, all_items)
    # noise below two standard deviations is no count
    floor = max(1.0, 2 * plan.counts_noise)
    count_I = noisy_counts(met_UI, plan.counts_noise, derived_key(private.secret, "noise of counts"), total)
    rows_IE = rows_of_counts(count_I, floor, table.shape[1])
    if plan.pairs_noise:
        head_M = np.sort(np.argsort(-count_I, kind="stable")[: config.head_items])
        key = derived_key(private.secret, "noise of pairs")
        pairs_MM = noisy_pairs(met_UI[:, head_M], plan.pairs_noise, key, total)
        count_M = np.maximum(count_I[head_M], floor)
        # by one rank for all: signs and last bits of eigenvectors are its processor's choice
        rows_ME = np.zeros((len(head_M), table.shape[1] - 1))
        if worker.rank == 0:
            rows_ME = rows_of_pairs(pairs_MM, count_M, table.shape[1] - 1, config.strength)
        rows_IE[head_M, 1:] = total(rows_ME)
    own_rows = torch.from_numpy(rows_IE[np.searchsorted(all_items, own_items)]).to(table)
    table[torch.from_numpy(own_items - store.ownership.first_node).to(table.device)] = own_rows
    begin_as_mean(model.encoder.layers[0].scoring)
    for weight in model.dense.inputs.parameters():
        weight.zero_()


def own_met(store: GraphStore, relation: Relation, all_items: np.ndarray) -> csr_array:
    """int64 [U, I]: 1 where one of this rank's users met an item in training."""
    parts = [store.prepared.parts[number] for number in store.own_parts]
    nodes = np.unique(np.concatenate([np.asarray(part.pairs(relation, "train"), np.int64) for part in parts]), axis=0)
    users, user_at = np.unique(nodes[:, 0], return_inverse=True)
    at = (user_at.ravel(), np.searchsorted(all_items, nodes[:, 1]))
    return csr_array((np.ones(len(nodes), np.int64), at), shape=(len(users), len(all_items)))


def begin_as_mean(scoring: nn.Module | torch.Tensor) -> None:
    """The mean of own rows without their first number, in whose place stands 1."""
    assert isinstance(scoring, AdditiveScoring), "checked with the recipe"
    for weight in scoring.parameters():
        weight.zero_()
    scoring.value.weight.fill_diagonal_(1.0)
    scoring.value.weight[0, 0] = 0.0
    scoring.bias[0] = 1.0
