"""`fit`: from a table to a tested model, with one look at the test pairs."""

from __future__ import annotations

import time
from typing import Any

from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.config.privacy_section import refuse_choice
from dist_gat.config.sections import Config
from dist_gat.evaluate.full_ranking import held_out_split
from dist_gat.graph.made_from import open_made, record_of
from dist_gat.tasks.build_task import predicted_relation
from dist_gat.workflows.final_recipe import final_recipe
from dist_gat.workflows.run import evaluate, prepare_if_need_be, train


def fit(config: Config, quiet: bool = True, progress: Progress = be_silent) -> dict[str, Any]:
    """From the table to a tested model: `prepare` if need be, also where settings or files have changed, `train`,
    train once more on training and validation pairs for as many epochs as were best, and evaluate that model, once, on
    the test pairs.

    Epoch and blend are chosen on validation alone. The model to recommend with is in `final` of the run folder.
    Goes on where it was stopped. Returns `chosen` and `final`, what `train` returned, `metrics` of the held-out
    `split`, `run`, the folder of the last model, `seconds`, and `stopped`. Without validation or test pairs the
    first model is the last, and the metrics are of the split that there is. Raises what `prepare`, `train` and
    `evaluate` raise.
    """
    started = time.perf_counter()
    refuse_choice(config.privacy, "fit")
    prepare_if_need_be(config, progress)
    prepared = open_made(config, progress=progress, parts=())
    relation = predicted_relation(prepared.schema, config.task)
    split = held_out_split(prepared, relation)
    chosen = train(config, quiet, progress=progress)
    result = {"chosen": chosen, "final": chosen, "run": chosen["run"], "stopped": chosen["stopped"]}
    if not chosen["stopped"]:
        last = config
        if prepared.num_pairs(relation, "valid") and prepared.num_pairs(relation, "test"):
            last = final_recipe(config, chosen)
            # with the seed of the split that chose
            prepare_if_need_be(last, progress, record_of(prepared)["seed"])
            progress(f"training on the validation pairs too: {chosen['best_epoch']} epochs")
            final = train(last, quiet, progress=progress)
            result |= {"final": final, "run": final["run"], "stopped": final["stopped"]}
        if not result["stopped"]:
            evaluated = evaluate(last, quiet, progress=progress)
            result["stopped"] = evaluated["stopped"]
            if not result["stopped"]:
                result |= {"split": split, "metrics": evaluated[split]}
    return {**result, "seconds": time.perf_counter() - started}
