"""Names for people: of metrics, models, slices and phases. What has none goes by its own."""

from __future__ import annotations

METRICS = {
    "recall": ("Recall", "the share of a user's held-out items that are in the list"),
    "precision": ("Precision", "the share of the list that the user met"),
    "ndcg": ("NDCG", "like recall, and the higher in the list the better; 1 is perfect"),
    "mrr": ("MRR", "one over the place of the first hit"),
    "hit_rate": ("Hit rate", "the share of users with a hit in the list"),
    "coverage": ("Coverage", "the share of all items that are in somebody's list"),
    "novelty": ("Novelty", "how little known the listed items are, in bits"),
    "diversity": ("Diversity", "how unlike each other the items of a list are; 0 is all alike"),
    "auc": ("AUC", "the chance that a 1 gets a higher prediction than a 0; 0.5 is guessing"),
    "auc_by_user": ("AUC within a user", "the same among the pairs of one user"),
    "log_loss": ("Log loss", "the mean of -log of the probability of what happened"),
    "average_precision": ("Average precision", "the area under the curve of precision and recall"),
    "brier": ("Brier score", "the mean squared error of the probabilities"),
    "calibration_error": ("Calibration error", "how far probabilities are from shares, on average"),
    "rmse": ("RMSE", "the root of the mean squared error, in the unit of the labels"),
    "mae": ("Mean absolute error", "in the unit of the labels"),
    "deviance": ("Poisson deviance", "how far counts are from their predicted means; 0 is perfect"),
    "rmse_log": ("RMSE of log(1 + count)", "about a relative error"),
}
# where guessing stands, if not at 0
CHANCE = {"auc": 0.5, "auc_by_user": 0.5}
MODELS = {
    "popularity": "Most popular items", "userknn": "User neighbours", "itemknn": "Item neighbours", "als": "ALS",
    "ease": "EASE", "gfcf": "GF-CF filter", "linear": "Linear filter", "mf": "Matrix factorisation",
    "lightgcn": "LightGCN", "gat": "GAT", "mean": "Overall mean", "user_mean": "Mean of the user",
    "itemknn-recent": "Item neighbours, recent first", "ease-recent": "EASE, recent first",
    "markov": "Markov chain of the last item", "item_mean": "Mean of the item",
    "biases": "User and item biases", "logistic": "Logistic regression",
    "boosting": "Gradient boosting", "rates": "User and item rates", "text-frozen": "Text encoder as it was",
}  # fmt: skip
SLICES = {
    "users": {
        "cold": "New users", "q1": "Least active quarter", "q2": "Second quarter", "q3": "Third quarter",
        "q4": "Most active quarter",
    },
    "items": {"cold": "New items", "head": "Most popular", "mid": "In between", "tail": "Long tail"},
}  # fmt: skip
PHASES = {
    "compute": "Computing", "gather": "Looking up embeddings", "stall": "Waiting for the next batch",
    "exchange": "Moving rows between workers", "checkpoint": "Saving", "sample": "Drawing neighbours",
}  # fmt: skip
TASKS = {
    "ranking": "ranks all items for every user", "rating": "predicts ratings",
    "click": "predicts the probability of a click", "count": "predicts counts",
    "own": "predicts by a task of your own", "together": "does several tasks",
    "reconstruct": "reconstructs hidden edges, and ranks all items for every user",
}  # fmt: skip
SPLITS = {"test": "test", "valid": "validation"}


def metric_title(metric: str) -> str:
    """`ndcg@20` is NDCG@20; of one of several tasks, `buy/ndcg@20`, its name stands first."""
    task, slash, own = metric.rpartition("/")
    name, at, k = own.partition("@")
    title = METRICS[name][0] + at + k if name in METRICS else own.replace("_", " ")
    return f"{task}: {title}" if slash else title


def metric_meaning(metric: str) -> str:
    """What it measures, or nothing of an unknown one."""
    return METRICS.get(metric.rpartition("/")[2].partition("@")[0], ("", ""))[1]


def slice_title(side: str, name: str) -> str:
    return SLICES.get(side, {}).get(name, name)
