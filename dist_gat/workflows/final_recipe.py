"""The last training of `fit`: on training and validation pairs together, with all that validation has chosen."""

from __future__ import annotations

from typing import Any

from dist_gat.base.addresses import below
from dist_gat.baselines.baseline import RECENT
from dist_gat.config.files import parse_config, place_run
from dist_gat.config.sections import Config
from dist_gat.tasks.pair_task import ALONE

FINAL_FOLDER = "final"


def final_recipe(config: Config, chosen: dict[str, Any]) -> Config:
    """The recipe for the folder `final` of the run, with the best number of epochs, and the best weights and half-life
    of the blend.

    chosen: the result of the training that validation judged. The learning rate has the same schedule.
    """
    tree = config.model_dump(mode="json")
    place_run(tree, config, FINAL_FOLDER, FINAL_FOLDER)
    tree["data"]["prepared"] = below(config.run or config.run_folder, f"{FINAL_FOLDER}/prepared")
    tree["data"]["split"]["merge_valid"] = True
    if len(config.evaluate.baseline.half_lives) > 1:  # chosen on validation pairs, which are training pairs now
        tree["evaluate"]["baselines"] = [name for name in config.evaluate.baselines if name not in RECENT]
    tree["train"] |= {"stop_epoch": chosen["best_epoch"], "patience": 0}
    tree["blend"] |= {f"{name}_weight": weight for name, weight in chosen["blend"].items()}
    if isinstance(config.blend.half_life, list):
        tree["blend"]["half_life"] = [chosen["half_life"]]
    tasks = tree["task"].get("tasks", {ALONE: tree["task"]})
    for name, calibration in chosen["calibration"].items():
        if tasks[name]["kind"] == "click":
            tasks[name]["fitted"] = calibration
    return parse_config(tree, where=FINAL_FOLDER)
