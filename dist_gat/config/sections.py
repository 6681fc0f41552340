"""The whole configuration: one small typed model per component, one YAML per recipe.

A component receives the smallest of these models that it needs, never the root. Values are checked here, once; all
other code trusts them. `dist_gat.config.files` reads and writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dist_gat.base.addresses import below, is_url, key_of
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.defaults import with_defaults
from dist_gat.config.launch_section import LaunchConfig
from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.privacy_section import PrivacyConfig, broken_promises
from dist_gat.config.section import FREE, LENGTH, FileName, PositiveInt, Section
from dist_gat.config.task_sections import (
    FIRST_RELATION,
    RANKING_DEFAULT,
    RANKING_KINDS,
    RankingTask,
    TaskConfig,
    TogetherTask,
    task_metrics,
)


class PartsConfig(Section):
    """How nodes are assigned to parts. Have at least as many parts as workers; more allow growth."""

    num_parts: PositiveInt = 4
    method: Literal["metis", "fennel", "range", "hash"] = "metis"


Strategy = Literal["uniform", "recent", "weight"]
EdgeWeights = Literal["none", "weight", "log"]
HalfLife = Annotated[float, Field(gt=0.0)] | None
HalfLives = HalfLife | Annotated[list[HalfLife], Field(min_length=1)]


class RelationSamplingConfig(Section):
    """How neighbours along one relation are drawn; of NAME_reversed, those of its targets alone."""

    fanouts: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="one a layer; 0: nobody attends along it there; default: sampling.fanouts"
    )
    strategy: Strategy | None = Field(None, description="default: sampling.strategy")


class SamplingConfig(Section):
    """Neighbour sampling: one fan-out per attention layer, the seeds' own neighbours first."""

    fanouts: list[PositiveInt] = Field(
        [10, 10], description="neighbours along each relation; []: no layers, which is matrix factorisation"
    )
    strategy: Strategy = Field(
        "uniform", description="recent: the newest first, where there are times; weight: in proportion to weights"
    )
    relations: dict[str, RelationSamplingConfig] = Field({}, description="of single relations, by name")
    time: Literal["any", "strict"] = Field(
        "any", description="strict: a seed sees edges before its own time alone, at every hop"
    )
    exclude_targets: bool = Field(True, description="hide the seed edges and their reverses from the message graph")
    prefetch: Annotated[bool, FREE] = Field(True, description="sample the next batches in the background")
    num_streams: Annotated[PositiveInt, FREE] = Field(
        4, description="batches that a worker samples at the same time, each in a thread and with a channel of its own"
    )
    access: Annotated[Literal["auto", "exchange"], FREE] = Field(
        "auto", description="auto: read the parts on this host in place; exchange: as if each rank had its own host"
    )
    cache_bytes: Annotated[int, FREE] = Field(
        64 << 20, ge=0, description="a worker's memory for input features of remote nodes of high degree; 0: none"
    )

    @model_validator(mode="after")
    def _one_fan_out_a_layer(self) -> SamplingConfig:
        for name, own in self.relations.items():
            if own.fanouts is not None and len(own.fanouts) != len(self.fanouts):
                raise ValueError(
                    f"relations.{name}.fanouts has {len(own.fanouts)} numbers and fanouts has {len(self.fanouts)}: "
                    "expected one a layer"
                )
        return self


class NegativesConfig(Section):
    """Negative items of a step: `num_shared` for all its seeds, `num_per_seed` for each one alone."""

    distribution: Literal["uniform", "popularity"] = Field("uniform", description="popularity: degree ** 0.75")
    num_shared: int = Field(1024, ge=0)
    num_per_seed: int = Field(0, ge=0)
    in_batch: bool = Field(False, description="the positive items of all ranks' seeds serve as negatives too")

    @model_validator(mode="after")
    def _some(self) -> NegativesConfig:
        if self.num_shared == 0 and self.num_per_seed == 0 and not self.in_batch:
            raise ValueError("there are no negatives: set num_shared, num_per_seed or in_batch")
        return self


def as_list(half_lives: HalfLives) -> list[float | None]:
    return half_lives if isinstance(half_lives, list) else [half_lives]


class BlendConfig(Section):
    """Closed-form scores beside the model's, with weights. See `dist_gat.filters.blend` for the equations."""

    spectral_rank: int = Field(0, ge=0, description="columns of the spectral filter; 0: without it")
    spectral_ridge: float = Field(0.06, gt=0.0, description="the larger, the fewer of the columns count")
    linear: bool = Field(False, description="score by users with common items too")
    linear_deflation: int = Field(0, ge=0, description="leading directions that the linear filter leaves out")
    spectral_weight: float | None = Field(None, ge=0.0, description="default: chosen on validation")
    linear_weight: float | None = Field(None, ge=0.0, description="default: chosen on validation")
    relations: dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        {},
        description="more edges of the filters, of other relations than the task's: a name, and the weight of each",
    )
    edge_weights: EdgeWeights = Field(
        "none", description="weight: an edge counts as much as the weight that it carries; log: log(1 + weight)"
    )
    half_life: HalfLives = Field(
        None, description="so many newer interactions of its user halve an edge; of several validation chooses"
    )
    num_users: PositiveInt = Field(5000, description="of those that validation measures, to choose the weights")

    @property
    def half_lives(self) -> list[float | None]:
        """Those to choose from."""
        return as_list(self.half_life)

    @property
    def reads_weights(self) -> bool:
        """Whether both filters go by weighted edges of given relations, and not the spectral one by all messages."""
        return bool(self.relations) or self.edge_weights != "none" or self.half_life is not None


class LossConfig(Section):
    """The training objective over positive and negative scores."""

    kind: Literal["bpr", "softmax"] = "softmax"
    log_q: bool = Field(True, description="softmax: correct for the distribution that negatives are drawn from")
    l2: float = Field(0.0, ge=0.0, description="weight of the squared norm of the seeds' ID embeddings")
    distill: float = Field(
        0.0, ge=0.0, description="weight of a term by which columns alone learn what they say with the ID row"
    )


class TrainConfig(Section):
    """Optimisation. `batch_size` counts the seed edges of a global step, over all workers."""

    num_epochs: Annotated[PositiveInt, LENGTH] = 20
    batch_size: PositiveInt = 4096
    max_steps: Annotated[int | None, LENGTH] = Field(
        None, ge=0, description="stop after so many steps, for trials; 0: save what `init_from` loads"
    )
    stop_epoch: Annotated[int | None, FREE] = Field(
        None, gt=0, description="end after this epoch, with the learning rates of num_epochs: `fit` sets it"
    )
    init_from: FileName | None = Field(
        None, description="a run folder or saved model: begin with its weights, as far as they fit"
    )
    adapter_from: FileName | None = Field(
        None,
        description="a folder that a run with model.adapter wrote: begin with it, on the same init_from",
    )
    freeze: list[str] = Field(
        [], description="patterns of names of dense parameters, such as encoder.*, and embeddings: not trained"
    )
    learning_rate: float = Field(0.01, gt=0.0)
    dense_learning_rate: float | None = Field(None, gt=0.0, description="default: learning_rate")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0.0)
    precision: Literal["float32", "float64", "bfloat16"] = Field(
        "float32", description="bfloat16: mixed precision, weights and embeddings stay in float32"
    )
    metric: str = RANKING_DEFAULT
    patience: Annotated[int, FREE] = Field(
        3, ge=0, description="stop after so many validations without a better metric; 0: never"
    )
    until: Annotated[Literal["metric", "loss"], FREE] = Field(
        "metric", description="what patience counts: validations of `metric`, or epochs and their mean training loss"
    )
    min_gain: Annotated[float, FREE] = Field(
        0.0, ge=0.0, description="patience: a smaller gain counts as none, so that training ends when it has converged"
    )
    validate_every: Annotated[PositiveInt, FREE] = Field(1, description="epochs between validations")
    log_every: Annotated[PositiveInt, FREE] = Field(10, description="steps between TensorBoard points")
    profile: Annotated[int, FREE] = Field(
        0, ge=0, description="record so many steps for Perfetto, and name the bottleneck"
    )


class CheckpointConfig(Section):
    """When a run saves its whole state. Every epoch ends with a checkpoint; these settings add more.

    A run goes on from the checkpoints that it finds in its folder. `previous` allows it to pass over damaged
    ones, `restart` deletes all that an earlier run left there.
    """

    every_steps: int | None = Field(None, gt=0)
    every_minutes: float | None = Field(10.0, gt=0.0)
    keep: PositiveInt = Field(2, description="so many of the newest stay, and the best")
    resume: Literal["auto", "previous", "restart"] = "auto"
    url: FileName | None = Field(
        None, description="where checkpoints go instead of the run folder: s3://bucket/folder, gs://, hdfs://, …"
    )


class BaselineConfig(Section):
    """Settings of the baselines. See `dist_gat.baselines` for the equations."""

    userknn_neighbors: PositiveInt = 100
    itemknn_neighbors: PositiveInt = 100
    shrinkage: float = Field(0.0, ge=0.0, description="userknn, itemknn: cosines that few pairs support count less")
    als_factors: PositiveInt = 64
    als_regularization: float = Field(0.01, gt=0.0)
    als_alpha: float = Field(10.0, gt=0.0, description="confidence in an interaction, where the rest has 1")
    als_iterations: PositiveInt = 15
    ease_l2: float = Field(250.0, gt=0.0)
    ease_max_items: PositiveInt = Field(20_000, description="takes 8 bytes × items², 3.2 GB for the default")
    gfcf_factors: PositiveInt = Field(256, description="at most one for 16 users or items")
    gfcf_weight: float = Field(0.3, ge=0.0, description="of the ideal low-pass filter beside the linear one")
    half_life: HalfLives = Field(
        [None, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0],
        description="itemknn-recent, ease-recent: so many newer ones halve an interaction; validation chooses",
    )
    markov_smoothing: float = Field(10.0, gt=0.0, description="as many transitions as the share of an item counts for")

    @property
    def half_lives(self) -> list[float | None]:
        return as_list(self.half_life)


class EvaluateConfig(Section):
    """Exact full ranking. Memory is bounded by the two chunk sizes, in nodes and in padded edges."""

    ks: list[PositiveInt] = Field([10, 20], min_length=1)
    num_users: PositiveInt | None = Field(None, description="a fixed sample of a split's users is measured; null: all")
    user_chunk: PositiveInt = 1024
    edge_chunk: PositiveInt = 200_000
    baselines: list[
        Literal[
            "popularity", "userknn", "itemknn", "als", "ease", "gfcf", "linear", "itemknn-recent", "ease-recent",
            "markov",
        ]
    ] = []  # fmt: skip
    baseline: BaselineConfig = BaselineConfig()


class Config(Section):
    """A recipe: everything from the input table to the trained recommender."""

    name: Annotated[str, FREE]
    seed: int = Field(0, ge=0, lt=2**63)
    run: Annotated[FileName, FREE] = Field(
        "", description="folder of checkpoints, logs and the saved model; default: runs/NAME"
    )
    data: Annotated[DataConfig, FREE]
    parts: Annotated[PartsConfig, FREE] = PartsConfig()
    sampling: SamplingConfig = SamplingConfig()
    negatives: NegativesConfig = NegativesConfig()
    task: TaskConfig = RankingTask()
    model: ModelConfig = ModelConfig()
    blend: Annotated[BlendConfig, FREE] = BlendConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: Annotated[CheckpointConfig, FREE] = CheckpointConfig()
    evaluate: Annotated[EvaluateConfig, FREE] = EvaluateConfig()
    launch: Annotated[LaunchConfig, FREE] = LaunchConfig()
    privacy: PrivacyConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, tree: Any) -> Any:
        return with_defaults(tree)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not name or not all(ch.isalnum() or ch in "-_." for ch in name) or name.startswith("."):
            raise ValueError("a name has letters, digits, '-', '_' and '.', and does not start with '.'")
        return name

    @property
    def run_folder(self) -> Path:
        """Of a run at a URL what this host has of it."""
        if is_url(self.run):
            return self.launch.cache_folder / "runs" / key_of(self.run)
        return Path(self.run or f"runs/{self.name}")

    @property
    def model_name(self) -> str:
        """Where the saved model is, a folder or a URL."""
        return below(self.run or self.run_folder, "model")

    @property
    def checkpoint_url(self) -> str | None:
        """Where checkpoints are, if not in a folder."""
        return self.checkpoint.url or (below(self.run, "checkpoints") if is_url(self.run) else None)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.launch.num_workers > self.parts.num_parts:
            raise ValueError(
                f"launch.num_workers={self.launch.num_workers} exceeds parts.num_parts={self.parts.num_parts}: "
                "every worker owns at least one part"
            )
        if self.model.adapter and not self.train.init_from:
            raise ValueError("model.adapter adapts a trained model: name its run in train.init_from")
        if self.train.adapter_from and not self.model.adapter:
            raise ValueError(
                "train.adapter_from needs model.adapter, with the settings that the adapter was trained with"
            )
        if self.model.adapter and self.model.adapter.rank > self.model.embedding_size:
            raise ValueError("model.adapter.rank exceeds model.embedding_size, so that it saves nothing: take less")
        if self.model.text:
            self._check_trained_text()
        singles = self.task.tasks.values() if isinstance(self.task, TogetherTask) else [self.task]
        for task in singles:
            if task.relation not in (FIRST_RELATION, *self.data.relations):
                raise ValueError(f"task.relation={task.relation} is neither {FIRST_RELATION} nor in data.relations")
            if task.relation != FIRST_RELATION and not self.data.relations[task.relation].has_pairs:
                raise ValueError(
                    f"task.relation={task.relation} has categories, or entities that are items; no task predicts such"
                )
        choices = self.metric_names
        if self.train.metric not in choices:
            raise ValueError(f"train.metric={self.train.metric} is not one of {', '.join(choices)}")
        if self.task.kind != "ranking" and (self.blend.spectral_rank or self.blend.linear):
            raise ValueError(f"blend ranks items: set spectral_rank=0 and linear=false with task.kind={self.task.kind}")
        if self.task.kind == "ranking":
            self._check_blended_relations(self.task.relation)
        if self.task.kind != "ranking" and self.sampling.time == "strict":
            raise ValueError(
                f"sampling.time=strict is for ranking, whose items are compared with a user of a time: set it to any "
                f"with task.kind={self.task.kind}"
            )
        if self.task.kind not in RANKING_KINDS and self.evaluate.baselines:
            raise ValueError(
                f"evaluate.baselines rank items: leave them out with task.kind={self.task.kind}; "
                "`dist-gat compare` has those of each kind"
            )
        if self.task.kind not in RANKING_KINDS and self.model.decoder.popularity:
            raise ValueError(f"model.decoder.popularity is for ranking: leave it out with task.kind={self.task.kind}")
        if self.loss.distill and not self.data.node_columns:
            raise ValueError("loss.distill: no nodes have columns; name some with data.nodes, or set it to 0")
        heads, size = self.model.num_heads, self.model.embedding_size
        if self.model.scoring in ("additive", "additive_v2") and size % heads:
            raise ValueError(f"model.embedding_size={size} is not a multiple of num_heads={heads}")
        if self.privacy is not None and (broken := broken_promises(self)):
            raise ValueError(f"privacy: the promise would not hold; {'; '.join(broken)}")
        if self.privacy is not None and is_url(self.run):
            raise ValueError("privacy keeps a secret and a ledger in the run folder: set run to a folder, not to a URL")
        return self

    def _check_trained_text(self) -> None:
        columns = self.data.node_columns.items()
        found = [(kind, one.name) for kind, of_type in columns for one in of_type if one.config.trainable]
        if len(found) != 1:
            names = ", ".join(f"data.nodes.{kind}.columns.{name}" for kind, name in found) or "none"
            raise ValueError(f"model.text trains the encoder of one column: {names} has trainable=true; expected one")
        if found[0][0] == "user" and self.data.split.cold_users:
            raise ValueError("model.text can't train texts of users whom data.split.cold_users holds out yet")
        if self.model.adapter:
            raise ValueError("model.text and model.adapter don't go together: leave one of them out")

    def _check_blended_relations(self, own: str) -> None:
        known = {FIRST_RELATION: ("user", "item"), **{n: (r.source, r.target) for n, r in self.data.relations.items()}}
        for name in self.blend.relations:
            if name == own or known.get(name) != known[own]:
                fit = [other for other in known if other != own and known[other] == known[own]]
                raise ValueError(
                    f"blend.relations.{name}: expected relations with the ends of {own}, beside it: "
                    f"{', '.join(fit) or 'data.relations has none'}"
                )
            if name != FIRST_RELATION and not self.data.relations[name].has_pairs:
                raise ValueError(f"blend.relations.{name} has categories, or entities that are items: leave it out")

    @property
    def higher_is_better(self) -> bool:
        """Of `train.metric`."""
        return self._metrics()[self.train.metric]

    @property
    def metric_names(self) -> list[str]:
        """What validation measures: by the kind of the task."""
        return list(self._metrics())

    def _metrics(self) -> dict[str, bool]:
        return task_metrics(self.task, self.evaluate.ks, bool(self.data.split.cold_items))
