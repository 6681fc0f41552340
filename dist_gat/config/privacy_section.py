"""`PrivacyConfig`: the promise of a private run, and what its recipe must not say. See docs/privacy.md."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

from pydantic import Field

from dist_gat.base.errors import ConfigError
from dist_gat.config.section import PositiveInt, Section
from dist_gat.config.task_sections import FIRST_RELATION

DELTA_EXPONENT = 1.1


class PrivateStartConfig(Section):
    """What a private run begins with: item rows from two sums over users, to which noise was added once.

    Shares are of 1 / noise², which adds up over Gaussian mechanisms. What they leave is for the steps.
    """

    counts: float = Field(0.1, gt=0.0, le=1.0, description="share of the budget for how many users met each item")
    pairs: float = Field(
        0.0, ge=0.0, lt=1.0, description="share for how many users met two of the items that most have met; 0: without"
    )
    head_items: int = Field(500, ge=2, le=8192, description="pairs: so many items, by the counts with noise")
    strength: float = Field(100.0, gt=0.0, description="pairs: how much they count beside the counts")


class PrivacyConfig(Section):
    """Differential privacy of each user: what all users share may hardly depend on any one of them."""

    epsilon: float = Field(gt=0.0, description="bound of the privacy loss over the whole run")
    delta: float | None = Field(
        None, gt=0.0, lt=1.0, description="how often the bound may fail; default: 1 / num_users^1.1"
    )
    max_interactions: PositiveInt = Field(
        32, description="of a user, so many pairs at most are predicted in a step that draws the user"
    )
    clip: float = Field(1.0, gt=0.0, description="L2 norm that the gradient of one user is cut down to")
    num_users: PositiveInt = Field(
        description="roughly how many users there are, as anyone may know: a round number, not the count of the data"
    )
    public_items: bool = Field(
        False, description="true: say that anyone may know which items exist; their rows show it"
    )

    public_columns: bool = Field(
        False,
        description="true: say that anyone may know the columns of items, and that no interaction enters them: a mean "
        "rating or a count of views would break the promise",
    )
    start: PrivateStartConfig | None = Field(None, description="null: rows begin at random, and steps do it all")

    @property
    def delta_value(self) -> float:
        return float(self.num_users**-DELTA_EXPONENT) if self.delta is None else self.delta


class Rule(NamedTuple):
    """A setting, its values that keep the promise, and what breaks it otherwise."""

    setting: str
    kept_by: tuple[Any, ...]
    reason: str


COUNTS = "degrees are counts over all users, without noise"
ONE_USER = "one user more changes what is kept of others"
NOT_READ = "a private step does not read it"
VALIDATION = "validation pairs are data of users, and what is chosen by them tells of them"
RULES = (
    Rule("privacy.public_items", (True,), "the saved rows show which items exist; say so, if anyone may know it"),
    Rule("task.kind", ("ranking",), "other tasks have no gradients by user"),
    Rule("task.relation", (FIRST_RELATION,), NOT_READ),
    Rule("data.split.method", ("leave_last_out", "files", "random"), ONE_USER),
    Rule("data.split.cold_items", (0, None), ONE_USER),
    Rule("data.split.cold_users", (0, None), ONE_USER),
    Rule("data.min_item_interactions", (0,), ONE_USER),
    Rule("data.prune", (None,), "what is doubtful is told by what others met"),
    Rule("data.relations", ({},), NOT_READ),
    Rule("parts.method", ("hash",), "other assignments place items by who met them, and the saved model shows it"),
    Rule("sampling.strategy", ("uniform",), NOT_READ),
    Rule("sampling.time", ("any",), NOT_READ),
    Rule("sampling.exclude_targets", (True,), "a row in two roles would be counted twice when a gradient is cut"),
    Rule("negatives.distribution", ("uniform",), COUNTS),
    Rule("negatives.in_batch", (False,), "the items of one user would enter the loss of another"),
    Rule("negatives.num_per_seed", (0,), NOT_READ),
    Rule("model.inputs.ids", (["item"],), "the row of a user is data of that user, which noise does not cover"),
    Rule("model.inputs.id_dropout", (0,), NOT_READ),
    Rule("model.inputs.fusion", ("sum",), "of other fusions no gradients by user are known"),
    Rule("model.scoring", ("additive", "uniform"), f"{COUNTS}; of other scorings no gradients by user are known"),
    Rule("model.terms", ([],), NOT_READ),
    Rule("model.keys", ([],), NOT_READ),
    Rule("model.softmax", ("all",), NOT_READ),
    Rule("model.projection", ("none",), NOT_READ),
    Rule("model.residual", (True,), "an item is its own row"),
    Rule("model.combination", ("last",), "a user is what the layer makes of the user's items"),
    Rule("model.decoder.kind", ("dot",), "of a cosine no gradients by user are known"),
    Rule("model.decoder.popularity", (False,), COUNTS),
    Rule("model.adapter", (None,), NOT_READ),
    Rule("model.text", (None,), NOT_READ),
    Rule("blend.spectral_rank", (0,), "the filters read the interactions of all users"),
    Rule("blend.linear", (False,), "the filters read the interactions of all users"),
    Rule("loss.kind", ("softmax",), NOT_READ),
    Rule("loss.log_q", (False,), COUNTS),
    Rule("loss.distill", (0,), NOT_READ),
    Rule("loss.l2", (0,), "it counts rows by who was drawn"),
    Rule("train.clip_norm", (None,), "the norm of the whole gradient is taken before the noise"),
    Rule("train.patience", (0,), VALIDATION),
    Rule("train.init_from", (None,), "the weights may hold the same users already"),
    Rule("train.freeze", ([],), NOT_READ),
    Rule("train.precision", ("float32", "float64"), "a gradient in bfloat16 can't be cut exactly"),
)


def broken_promises(config: Any) -> list[str]:
    """What of a whole configuration breaks the promise of its section `privacy`: setting, remedy and reason each."""
    found = [
        f"{rule.setting}={_plain(value)}: set it to {' or '.join(map(_plain, rule.kept_by))} ({rule.reason})"
        for rule in RULES
        if (value := reduce(getattr, rule.setting.split("."), config)) not in rule.kept_by
    ]
    split, sampling, privacy = config.data.split, config.sampling, config.privacy
    found += _broken_columns(config)
    if privacy.start is not None:
        found += _broken_start(config)
    if privacy.delta_value * privacy.num_users >= 1:
        found.append(
            f"privacy.delta={privacy.delta_value:g}: set it below 1 / num_users (it allows to publish one user whole)"
        )
    if split.method == "random" and split.valid_ratio + split.test_ratio > 0:
        found.append(
            f"data.split.method=random: set valid_ratio and test_ratio to 0, or take leave_last_out ({ONE_USER})"
        )
    if len(sampling.fanouts) != 1:
        found.append(
            f"sampling.fanouts={sampling.fanouts}: give one number (a second hop leads through items to other users)"
        )
    heard = sampling.relations.get(f"{FIRST_RELATION}_reversed")
    if set(sampling.relations) != {f"{FIRST_RELATION}_reversed"} or heard is None or heard.fanouts != [0]:
        found.append(
            f"sampling.relations: set it to {{{FIRST_RELATION}_reversed: {{fanouts: [0]}}}} (items hear from users)"
        )
    return found


def _broken_columns(config: Any) -> list[str]:
    columns = config.data.node_columns
    found = [
        f"{setting}: leave it out ({kind}: columns of items alone are public)"
        for kind, of_type in columns.items()
        if kind != "item"
        for setting in dict.fromkeys(column.setting for column in of_type)
    ]
    if "item" not in columns:
        return found
    if not config.privacy.public_columns:
        found.append(
            "privacy.public_columns=false: set it to true, or leave the columns of items out (say so, if anyone may "
            "know them and no interaction enters them)"
        )
    if config.data.known_nodes != "all":
        found.append(
            f"data.known_nodes={config.data.known_nodes}: set it to all with columns of items, and prepare again "
            "(users decide which items training meets, and scales and categories would tell it)"
        )
    for column in columns["item"]:
        if column.config.kind in ("numeric", "vector") and column.config.scale == "none":
            found.append(
                f"{column.setting}: standardize {column.name} (sums of large numbers are rounded by more than the clip)"
            )
    if config.train.max_steps == 0:
        found.append(
            "train.max_steps=0: leave the columns of items out, or set it to some steps (nothing else reads columns)"
        )
    return found


def _broken_start(config: Any) -> list[str]:
    start, found, max_steps = config.privacy.start, [], config.train.max_steps
    if config.model.scoring != "additive":
        found.append(
            f"model.scoring={config.model.scoring}: set it to additive with privacy.start (its bias carries the counts)"
        )
    if config.model.embedding_size < 2:
        found.append("model.embedding_size=1: set it to 2 or more with privacy.start (one number is for the counts)")
    whole = start.counts + start.pairs
    if whole > 1 + 1e-9 or (whole > 1 - 1e-9 and max_steps != 0):
        found.append(
            f"privacy.start: counts and pairs share {whole:g} of the budget: set them to less than 1 together, or to 1 "
            "with train.max_steps=0 (nothing is left for the steps)"
        )
    return found


def refuse_choice(privacy: PrivacyConfig | None, verb: str) -> None:
    """Raise `ConfigError` where a verb would choose settings of a private run by the data of its users."""
    if privacy is not None:
        raise ConfigError(
            f"privacy: `dist-gat {verb}` chooses settings by validation pairs, which are data of users; choose them on "
            "public data of the same kind, write them into the recipe, and use `dist-gat prepare` and `dist-gat train`"
        )


def _plain(value: Any) -> str:
    """As YAML has it."""
    names = {"True": "true", "False": "false", "None": "null"}
    return names.get(str(value), str(value))
