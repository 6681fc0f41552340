"""`COMPARED_MODELS`: what `compare` puts side by side, the baselines and the recipe's relatives.

The relatives have neither blend nor popularity, because they stand for models of the literature:
mf        the recipe without layers: matrix factorisation
lightgcn  its layers as in LightGCN: neighbours by degree, no residual, the mean of all depths (He et al., SIGIR 2020)
gat       its layers as in GAT: additive attention (Veličković et al., ICLR 2018)
recipe    as it is
only-TASK one of several tasks, with the rest of the recipe as it is
without-RELATION  the recipe, whose nodes don't attend along a relation that is made from columns
without-pruning  the recipe, where all interactions carry messages; on a prepared folder of its own
text-frozen  the recipe with the encoder of texts as it was, where the recipe trains it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dist_gat.base.addresses import below
from dist_gat.base.errors import ConfigError
from dist_gat.baselines.baseline import BASELINES, TIMED
from dist_gat.baselines.pair_baselines import PAIR_BASELINES
from dist_gat.config.data_sections import PRUNING
from dist_gat.config.files import parse_config, place_run
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import FIRST_RELATION, RANKING_KINDS, TaskConfig, TogetherTask

PLAIN = {
    "normalization": "softmax", "transform": "none", "terms": [], "keys": [], "softmax": "all", "projection": "none",
    "weight_scale": "linear",
}  # fmt: skip
ALONE = {"spectral_rank": 0, "linear": False}
# of several tasks, one alone
ONLY = "only-"
# of the recipe, a relation
WITHOUT = "without-"
# a recipe that trains an encoder of texts, without that
FROZEN = "text-frozen"
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "mf": {"sampling": {"fanouts": []}, "blend": ALONE},
    "lightgcn": {
        "model": {**PLAIN, "scoring": "degree", "num_heads": 1, "residual": False, "combination": "mean"},
        "blend": ALONE,
    },
    "gat": {
        "model": {**PLAIN, "scoring": "additive"},
        # recipes choose the rate of the embedding rows without dense layers; at that rate these layers spoil the rest
        "train": {"dense_learning_rate": 0.002},
        "blend": ALONE,
    },
    "recipe": {},
}


def compared_models(task: TaskConfig, made: Sequence[str] = (), trains_text: bool = False) -> tuple[str, ...]:
    """All that a recipe of this task is compared with, and the recipe; of several tasks, each one alone.

    made: what can be left out by `without-`: relations that are made from columns, and pruning. trains_text: whether
    the recipe trains an encoder of texts.
    """
    models = (*MODELS, *(f"{WITHOUT}{name}" for name in made), *([FROZEN] if trains_text else []))
    if isinstance(task, TogetherTask):
        # pairs of other relations are all for training, so that nothing measures a task of theirs alone
        measured = [name for name, single in task.tasks.items() if single.relation == FIRST_RELATION]
        return (*(f"{ONLY}{name}" for name in measured), *models)
    return (*(BASELINES if task.kind in RANKING_KINDS else PAIR_BASELINES[task.kind]), *models)


def choose_models(
    names: Sequence[str] | None, task: TaskConfig, has_times: bool = True, made: Sequence[str] = (),
    trains_text: bool = False,
) -> list[str]:  # fmt: skip
    """The named models, or all of a task, each once; without names none that needs times which data don't have.

    Raises `ConfigError` for an unknown one.
    """
    known = compared_models(task, made, trains_text)
    default = [name for name in known if has_times or name not in TIMED]
    chosen = list(dict.fromkeys(default if names is None else names))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise ConfigError(f"models: {', '.join(unknown) or 'none'}: expected some of {', '.join(known)}")
    return chosen


def model_recipe(name: str, config: Config) -> Config:
    """The recipe of a model that is trained: the settings of `config` apart from what makes the model another one.

    The recipe itself trains in its own run folder, the others in `compare/NAME` below it. Raises `ConfigError` where
    the remaining settings don't fit the model.
    """
    if config.privacy is not None and name != "recipe":
        raise ConfigError(
            f"{name}: a private run on the same users more, which nothing would count; train it from a recipe of its "
            "own, and add its ε to that of the others"
        )
    tree = config.model_dump(mode="json")
    tree["evaluate"]["baselines"] = []
    changes = MODELS.get(name, {})
    if name.startswith(ONLY):
        task = name.removeprefix(ONLY)
        tree["task"]["tasks"] = {task: tree["task"]["tasks"][task]}
        if not tree["train"]["metric"].startswith(f"{task}/"):
            del tree["train"]["metric"]
        changes = {"blend": ALONE}
    if changes:
        for section, values in changes.items():
            tree[section] |= values
        tree["model"]["decoder"]["popularity"] = False
        tree["model"] |= {"adapter": None, "text": None}
        tree["train"] |= {"init_from": None, "adapter_from": None, "freeze": []}
    if name == f"{WITHOUT}{PRUNING}":
        tree["data"] |= {"prune": None, "prepared": below(config.run or config.run_folder, f"compare/{name}/prepared")}
    elif name.startswith(WITHOUT):
        of_relation = tree["sampling"]["relations"].setdefault(name.removeprefix(WITHOUT), {})
        of_relation["fanouts"] = [0] * len(config.sampling.fanouts)
    if name == FROZEN:
        tree["model"]["text"] = None
    if name != "recipe":
        tree["name"] = f"{config.name}-{name}"
        place_run(tree, config, f"compare/{name}", f"compare/{name}")
    return parse_config(tree, where=name)


def is_trained(name: str) -> bool:
    """Whether a compared model is a recipe, and no baseline."""
    return name in MODELS or name == FROZEN or name.startswith((ONLY, WITHOUT))
