"""What is predicted: one section a kind of task, and the metrics of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dist_gat.config.section import FileName, PositiveInt, Section, check_names

RANKING_DEFAULT = "ndcg@20"
# the relation of the table of interactions, which alone has validation and test pairs
FIRST_RELATION = "interacts"
RANKING_METRICS = ("recall", "precision", "ndcg", "mrr", "hit_rate")
# of a split that holds items out: of the interactions with which items, and in a ranking among which
AMONG = "_among_"
COLD_METRICS = ("cold", f"cold{AMONG}cold", "warm", f"warm{AMONG}warm")
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
    relation: str = Field(FIRST_RELATION, description="interacts, or a name of data.relations")
    weight: float = Field(1.0, gt=0.0, description="together: of its loss")


class PairSection(Section):
    """A task that predicts a label of pairs."""

    relation: str = Field(FIRST_RELATION, description="interacts, or a name of data.relations")
    label: str = Field("weight", description="weight, or a name of data.columns.labels")
    weight: float = Field(1.0, gt=0.0, description="together: of its loss")

    @property
    def exposure_label(self) -> str | None:
        """The label whose log is added to values."""
        return None

    @property
    def negatives_per_pair(self) -> int:
        """Random pairs that count as 0 beside each interaction."""
        return 0


class RatingTask(PairSection):
    """Predict a number on a scale, such as a rating."""

    kind: Literal["rating"]
    loss: Literal["squared", "huber", "ordinal"] = Field(
        "squared", description="ordinal: probabilities of the levels; the prediction is their mean"
    )
    huber_delta: float = Field(1.0, gt=0.0, description="huber: from this error on the loss is linear")
    clip: bool = Field(True, description="predictions stay between the smallest and the largest training label")


class ClickTask(PairSection):
    """Predict the probability that a label is 1 and not 0: a click, a purchase, a video watched to its end."""

    kind: Literal["click"]
    sampled_negatives: int = Field(
        0, ge=0, description="so many random pairs are 0 for each interaction, and interactions are 1; 0: by the label"
    )
    calibration: Literal["none", "temperature", "isotonic"] = Field(
        "temperature", description="fitted on validation, and saved with the model"
    )
    fitted: dict[str, Any] | None = Field(
        None, description="a calibration that is there already: `fit` hands on that of validation"
    )

    @property
    def negatives_per_pair(self) -> int:
        return self.sampled_negatives


class CountTask(PairSection):
    """Predict a label that counts something: plays, visits. The mean is exposure · exp(value)."""

    kind: Literal["count"]
    likelihood: Literal["poisson", "negative_binomial"] = "poisson"
    zero_inflated: bool = Field(False, description="a learned share of pairs is 0 whatever its mean")
    exposure: str | None = Field(None, description="a name of data.columns.labels: days watched, times shown")

    @property
    def exposure_label(self) -> str | None:
        return self.exposure


class OwnTask(PairSection):
    """A task of your own: see docs/tasks.md."""

    kind: Literal["own"]
    file: FileName = Field(description="a Python file with a function build_likelihood(settings, labels)")
    metric: str = Field(pattern="^[^/]+$", description="of its metrics, the one that validation goes by")
    higher_is_better: bool = Field(False, description="of this metric")
    settings: dict[str, Any] = {}


class ReconstructTask(Section):
    """Reconstruct hidden edges of all relations, and hidden columns, from what is left, to pre-train a model."""

    kind: Literal["reconstruct"]
    hidden_together: PositiveInt = Field(
        8, description="so many edges of a node are hidden, and reconstructed, at a time; 1: each alone, as in ranking"
    )
    weights: dict[str, Annotated[float, Field(ge=0.0)]] = Field(
        {}, description="of the losses of single relations, by name; 0: not reconstructed; default: 1"
    )
    hidden_columns: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of nodes whose columns a step hides, and reconstructs; 0: of none"
    )
    column_weight: float = Field(1.0, gt=0.0, description="of the loss of hidden columns")

    @property
    def relation(self) -> str:
        """The one that validation measures."""
        return FIRST_RELATION


# tasks whose rows rank the targets of a relation
RANKING_KINDS = ("ranking", "reconstruct")
# of the column that a task which stands alone predicts into
RESERVED_TASKS = ("prediction",)
# a task that predicts a label of pairs
PairConfig = RatingTask | ClickTask | CountTask | OwnTask
SingleTask = Annotated[RankingTask | RatingTask | ClickTask | CountTask | OwnTask, Field(discriminator="kind")]


class TogetherTask(Section):
    """Several tasks over one encoder. The first one is what `recommend` ranks by."""

    kind: Literal["together"]
    tasks: dict[str, SingleTask] = Field(min_length=1, description="by name")
    weighting: Literal["given", "uncertainty", "gradient_norm"] = Field(
        "given", description="given: each task's weight; uncertainty: learned; gradient_norm: equal pull on the encoder"
    )
    heads: Literal["alone", "experts", "chain"] = Field(
        "alone",
        description="experts: each task mixes shared layers (MMoE); chain: clicks, where each needs the one before it "
        "(ESMM: view, cart, buy)",
    )
    num_experts: PositiveInt = Field(4, description="experts: shared layers")

    @field_validator("tasks")
    @classmethod
    def _plain_names(cls, tasks: dict[str, Any]) -> dict[str, Any]:
        check_names("a task", tasks, RESERVED_TASKS)
        return tasks

    @model_validator(mode="after")
    def _chain_of_clicks(self) -> TogetherTask:
        if self.heads == "chain":
            others = [
                name for name, task in self.tasks.items() if not isinstance(task, ClickTask) or task.sampled_negatives
            ]
            if others:
                raise ValueError(f"heads=chain is for clicks with labels, which {', '.join(others)} has not")
        name, first = next(iter(self.tasks.items()))
        if first.relation != FIRST_RELATION:
            raise ValueError(
                f"{name} stands first, and {first.relation} has no validation pairs: put a task of {FIRST_RELATION} "
                "there"
            )
        if self.heads != "alone" and any(isinstance(task, RankingTask) for task in self.tasks.values()):
            raise ValueError(f"heads={self.heads} is for tasks that predict pairs; ranking goes with heads=alone")
        return self


TaskConfig = Annotated[
    RankingTask | RatingTask | ClickTask | CountTask | OwnTask | ReconstructTask | TogetherTask,
    Field(discriminator="kind"),
]


def task_metrics(task: TaskConfig, ks: Sequence[int], some_are_cold: bool = False) -> dict[str, bool]:
    """What validation measures by name, and whether higher is better. ks: the lengths of ranked lists. some_are_cold:
    the split holds items out."""
    if isinstance(task, RankingTask | ReconstructTask):
        names = [f"{name}@{k}" for name in RANKING_METRICS for k in ks]
        names += [f"{kind}/{name}" for kind in COLD_METRICS for name in names] if some_are_cold else []
        return dict.fromkeys(names, True)
    if isinstance(task, OwnTask):
        return {task.metric: task.higher_is_better}
    if isinstance(task, TogetherTask):
        return {
            f"{name}/{metric}": better
            for name, single in task.tasks.items()
            if single.relation == FIRST_RELATION
            for metric, better in task_metrics(single, ks, some_are_cold).items()
        }
    return PAIR_METRICS[task.kind]


def default_metric(tree: Any) -> str | None:
    """The metric that a task's plain YAML goes by where the recipe names none; None of what is no such task."""
    if not isinstance(tree, dict):
        return None
    if tree.get("kind") == "own":
        return tree.get("metric")
    if tree.get("kind") == "together" and isinstance(tree.get("tasks"), dict) and tree["tasks"]:
        name, single = next(iter(tree["tasks"].items()))
        return f"{name}/{default_metric(single) or RANKING_DEFAULT}"
    return next(iter(PAIR_METRICS.get(tree.get("kind", ""), ())), None)
