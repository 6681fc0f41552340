"""Do explanations hold? `python -m benchmarks.explanations RUN [--users 200]`, of a run that `train` left.

For users drawn at random, the best new item is explained. Shown is the share of users whose score falls by more than
chance (two standard deviations above the mean of random deletions) without the first five of the explanation, and
without the five of most attention; and the share of those for whom it falls by more than in 95 % of the random
deletions. Of a history of six, three are deleted, and no three can be two deviations above the mean of any three.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from dist_gat.explain.explanation import explain_item
from dist_gat.explain.trained_run import open_trained_run

BAR, OF_RANDOM = 0.9, 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    run = open_trained_run(arguments.run)
    users = run.saved.ids(run.saved.relation.source)["external_id"].to_list()
    chosen = np.random.default_rng(arguments.seed).choice(len(users), min(arguments.users, len(users)), replace=False)
    started, found = time.perf_counter(), []
    for number in chosen.tolist():
        found.append(explain_item(run, str(users[number]), None, 1)["fidelity"])
    shares = {
        name: float(np.mean([entry[key] for entry in found]))
        for name, key in (("contribution", "above_chance"), ("attention", "attention_above_chance"))
    }
    beaten = [np.mean(np.array(entry["random_drops"]) < entry["top_drop"]) for entry in found]
    shares["more than 95 % of random deletions"] = float(np.mean(np.array(beaten) >= OF_RANDOM))
    seconds = (time.perf_counter() - started) / len(found)
    print(f"{len(found)} users, {seconds:.2f} s each; above chance without the first five by")
    for name, share in shares.items():
        print(f"  {name}: {share:.1%}{f' (bar {BAR:.0%})' if name == 'contribution' else ''}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**shares, "users": len(found), "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
