"""A Markov chain of the last item: what comes next, by what came next for all.

Shape legend: U users, I items, M moments: all that a user met at one time, by user and time.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array

from dist_gat.baselines.histories import Histories
from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import BaselineConfig


def fit_markov(histories: Histories, config: BaselineConfig) -> Scorer:
    """score(u, i) = P(i | l) for the last item l of u, with P(i | l) = (n_li + s p_i) / (Σ_j n_lj + s).

    n_li counts how often i came next after l in a training history, p_i is the share of i in all interactions and s
    is `markov_smoothing`: the chain of Rendle, Freudenthaler and Schmidt-Thieme (WWW 2010), whose rows Dirichlet
    smoothing completes (Zhai and Lafferty, SIGIR 2001). Items of one time have no order: they are each followed by
    all of the next time, a transition from any of n items counts 1 / n, and the last ones have their mean. A user
    without history has p. Raises `ConfigError` without times.
    """
    times = histories.when("markov")
    order = np.lexsort((times, histories.users))
    user, time, item = histories.users[order], times[order], histories.items[order]
    is_new = np.append(len(user) > 0, (user[1:] != user[:-1]) | (time[1:] != time[:-1]))[: len(user)]
    moment, user_M = np.cumsum(is_new) - 1, user[is_new]
    shape = (len(user_M), histories.num_items)
    met_MI = csr_array((np.ones(len(item), np.float32), (moment, item)), shape=shape)
    mean_MI = csr_array(diags_array((1 / met_MI.sum(axis=1)).astype(np.float32)) @ met_MI)
    is_last_M = np.append(user_M[1:] != user_M[:-1], len(user_M) > 0)[: len(user_M)]
    before = np.flatnonzero(~is_last_M)
    counts_II = csr_array(mean_MI[before].T @ met_MI[before + 1])
    last = np.flatnonzero(is_last_M)
    chosen = csr_array((np.ones(len(last), np.float32), (user_M[last], last)), shape=(histories.num_users, len(user_M)))
    last_UI = csr_array(chosen @ mean_MI)
    share_I = np.bincount(item, minlength=histories.num_items) / max(len(item), 1)
    total_I = counts_II.sum(axis=1) + config.markov_smoothing
    # how much of each row is p: all of it for a user without history
    smooth_U = last_UI @ (config.markov_smoothing / total_I)
    smooth_U[np.diff(last_UI.indptr) == 0] = 1.0
    return Scorer(
        (last_UI, csr_array(diags_array((1 / total_I).astype(np.float32)) @ counts_II)),
        (smooth_U.astype(np.float32)[:, None], share_I.astype(np.float32)[None, :]),
    )
