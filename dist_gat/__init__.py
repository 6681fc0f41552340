"""dist_gat: graph-attention recommenders on interaction graphs that outgrow one GPU and then one machine.

import dist_gat

config = dist_gat.load_config("configs/ml-100k.yaml", ["train.num_epochs=5"])
dist_gat.prepare(config)
dist_gat.train(config)
dist_gat.evaluate(config)["test"]["recall@20"]
dist_gat.recommend(config.run_folder, users=["196"], k=10)
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["evaluate", "load_config", "prepare", "recommend", "train"]


def __getattr__(name: str) -> Any:
    # the verbs load torch and Ray; whoever needs a small module of this package should not wait for them
    if name in __all__:
        from dist_gat.launcher import verbs

        return getattr(verbs, name)
    raise AttributeError(f"module 'dist_gat' has no attribute '{name}'")
