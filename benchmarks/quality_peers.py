"""Peers of the quality lines that are none of our baselines: factorisation, words, ALS with counts.

As `dist_gat.baselines.pair_baselines`, a peer is a function from the training pairs to a function that predicts.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix, hstack
from torch import nn
from torch.nn import functional

from dist_gat.baselines.pair_baselines import LabelledPairs, Predict

LOGISTIC_FACTORS = 16
LENSKIT_FACTORS = 50


def fit_lenskit(train: LabelledPairs) -> Predict:
    """LensKit's biased matrix factorisation (Koren, Bell and Volinsky 2009) by ALS; its defaults, 50 factors."""
    import pandas as pd
    from lenskit.als import BiasedMFScorer
    from lenskit.data import ItemList, from_interactions_df

    table = pd.DataFrame({"user_id": train.users, "item_id": train.items, "rating": train.labels})
    scorer = BiasedMFScorer(embedding_size=LENSKIT_FACTORS)
    scorer.train(from_interactions_df(table))

    def predict(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        predictions = np.empty(len(users))
        for user in np.unique(users):
            at = np.flatnonzero(users == user)
            predictions[at] = scorer(query=int(user), items=ItemList(item_ids=items[at])).scores()
        # an item without training pairs has no score
        predictions = np.where(np.isfinite(predictions), predictions, train.labels.mean())
        return predictions.clip(train.labels.min(), train.labels.max())

    return predict


def fit_logistic_factors(train: LabelledPairs) -> Predict:
    """P(1) = sigmoid(c + b_u + b_i + p_u · q_i), 16 factors, by Adam; a tenth of the pairs says when to stop."""
    order = np.random.default_rng(0).permutation(len(train.labels))
    held, rest = np.split(order, [len(order) // 10])
    losses = _train_factors(train, rest, held, num_epochs=30)[1]
    model, _ = _train_factors(train, order, held, num_epochs=int(np.argmin(losses)) + 1)

    @torch.no_grad()
    def predict(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(users), torch.from_numpy(items)).sigmoid().double().numpy()

    return predict


def _train_factors(
    train: LabelledPairs, chosen: np.ndarray, held: np.ndarray, num_epochs: int
) -> tuple[LogisticFactors, list[float]]:
    """The model after so many epochs on the chosen pairs, and its loss on the held ones after each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LogisticFactors(train.num_users, train.num_items)
        users, items = torch.from_numpy(train.users), torch.from_numpy(train.items)
        labels = torch.from_numpy(train.labels).float()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        losses = []
        for _ in range(num_epochs):
            for at in torch.from_numpy(chosen)[torch.randperm(len(chosen))].split(1024):
                optimizer.zero_grad()
                functional.binary_cross_entropy_with_logits(model(users[at], items[at]), labels[at]).backward()
                optimizer.step()
            with torch.no_grad():
                values = model(users[held], items[held])
                losses.append(float(functional.binary_cross_entropy_with_logits(values, labels[held])))
            if losses[-1] > min(losses) + 0.02:
                break
    return model, losses


class LogisticFactors(nn.Module):
    """The last column of a row is the node's bias."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.users, self.items = (nn.Embedding(count, LOGISTIC_FACTORS + 1) for count in (num_users, num_items))
        self.constant = nn.Parameter(torch.zeros(()))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, users_B: torch.Tensor, items_B: torch.Tensor) -> torch.Tensor:
        left, right = self.users(users_B), self.items(items_B)
        return (left[:, :-1] * right[:, :-1]).sum(dim=1) + left[:, -1] + right[:, -1] + self.constant


def fit_logistic_words(train: LabelledPairs, texts: list[str]) -> Predict:
    """Logistic regression with a weight a user and TF-IDF words of the item's text; texts: by item number."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words_I = csr_array(TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(texts))

    def columns(users: np.ndarray, items: np.ndarray) -> csr_array:
        ones, rows = np.ones(len(users)), np.arange(len(users))
        left = csr_array((ones, (rows, users)), shape=(len(users), train.num_users))
        return csr_array(hstack([left, words_I[items]]))

    model = LogisticRegression(max_iter=500).fit(columns(train.users, train.items), train.labels)
    return lambda users, items: model.predict_proba(columns(users, items))[:, 1]


def rank_with_als(counts_UI: csr_array, k: int, weighting: str = "log", alpha: float = 1.0) -> np.ndarray:
    """int64 [U, k]: the best new items of each user by ALS of `implicit` with its defaults, confidence by counts.

    weighting: `log` is alpha log(1 + count), `bm25` what its Last.fm tutorial takes.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import bm25_weight
    from threadpoolctl import threadpool_limits

    known = csr_matrix(counts_UI)
    if weighting == "log":
        confidence = known.copy()
        confidence.data = alpha * np.log1p(confidence.data)
    else:
        confidence = csr_matrix(bm25_weight(known.T, K1=100, B=0.8)).T.tocsr()
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=64, random_state=0)
        model.fit(confidence.astype(np.float32), show_progress=False)
    return model.recommend(np.arange(known.shape[0]), known, N=k)[0].astype(np.int64)
