"""What is predicted: one section a kind of task, and the metrics of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dist_gat.config.section import Section

RANKING_METRICS = ("recall", "precision", "ndcg", "mrr", "hit_rate")
# of a pair's prediction, the first one by default; True where higher is better
PAIR_METRICS = {
    "rating": {"rmse": False, "mae": False},
    "click": {
        "auc": True, "log_loss": False, "auc_by_user": True, "average_precision": True, "brier": False,
        "calibration_error": False,
    },
    "count": {"deviance": False, "rmse_log": False, "mae": False},
}  # fmt: skip


class RankingTask(Section):
    """Rank items for users; `negatives` and `loss` say how it is trained."""

    kind: Literal["ranking"] = "ranking"


class RatingTask(Section):
    """Predict the weight of an interaction, such as a rating."""

    kind: Literal["rating"]
    loss: Literal["squared", "huber"] = "squared"
    huber_delta: float = Field(1.0, gt=0.0, description="huber: from this error on the loss is linear")
    clip: bool = Field(True, description="predictions stay between the smallest and the largest training label")


class ClickTask(Section):
    """Predict the probability that a weight is 1 and not 0: a click, a purchase, a video watched to its end."""

    kind: Literal["click"]
    calibration: Literal["none", "temperature", "isotonic"] = Field(
        "temperature", description="fitted on validation, and saved with the model"
    )
    fitted: dict[str, Any] | None = Field(
        None, description="a calibration that is there already: `fit` hands on that of validation"
    )


class CountTask(Section):
    """Predict a weight that counts something: plays, visits. The mean is exp(value)."""

    kind: Literal["count"]
    likelihood: Literal["poisson", "negative_binomial"] = "poisson"


TaskConfig = Annotated[RankingTask | RatingTask | ClickTask | CountTask, Field(discriminator="kind")]
