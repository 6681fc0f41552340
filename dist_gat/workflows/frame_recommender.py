"""`FrameRecommender`: data frames in and out, with the methods that scikit-learn and RecTools have.

from dist_gat.api import FrameRecommender

model = FrameRecommender({"train.num_epochs": 5}).fit(interactions)
model.recommend(users=[196, 7], k=10)
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from dist_gat.base.errors import ConfigError
from dist_gat.base.storage import write_text
from dist_gat.config.files import load_config
from dist_gat.config.sections import Config
from dist_gat.serve.opened_model import OpenedModel, open_whole
from dist_gat.workflows.run import prepare, train

# what `configs/ml-100k.yaml` has, for any table
RECIPE: dict[str, Any] = {
    "name": "frame",
    "data": {"interactions": "interactions"},
    "parts": {"num_parts": 2, "method": "hash"},
    "sampling": {"fanouts": [10, 10]},
    "negatives": {"num_shared": 128, "in_batch": True},
    "model": {
        "scoring": "degree", "residual": False, "combination": "mean",
        "decoder": {"kind": "cosine", "temperature": 0.15, "popularity": True},
    },
    "train": {"num_epochs": 10, "learning_rate": 0.02, "schedule": "cosine", "patience": 3},
    "launch": {"launcher": "local", "num_workers": 1},
}  # fmt: skip


class FrameRecommender:
    """settings: of the recipe, by dotted key, as on the command line. validation: share of the interactions by which
    the best epoch is chosen; 0: all are learned from, and the last epoch is taken. folder: for the recipe, the prepared
    data set and the run, which the command line then knows too; None: a temporary one, which goes with the object.
    """

    def __init__(
        self, settings: Mapping[str, Any] | None = None, validation: float = 0.1, folder: str | Path | None = None
    ) -> None:
        self.settings, self.validation, self.folder = settings, validation, folder

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As scikit-learn asks for them."""
        return {"settings": self.settings, "validation": self.validation, "folder": self.folder}

    def set_params(self, **params: Any) -> FrameRecommender:
        """Raises `ConfigError` for a parameter that there is none of."""
        if unknown := params.keys() - self.get_params():
            raise ConfigError(f"{', '.join(sorted(unknown))}: expected some of {', '.join(self.get_params())}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, interactions: Any, y: None = None) -> FrameRecommender:
        """Learn from a data frame (pandas, polars, Arrow, …: see docs/data.md) with the columns user_id, item_id and
        perhaps weight and datetime, or what `settings` name. An earlier fit is forgotten. Raises what `prepare` and
        `train` raise.
        """
        self.__dict__.pop("opened", None)
        self.is_pandas = type(interactions).__module__.partition(".")[0] == "pandas"
        self.place = Path(self._temporary.name if self.folder is None else self.folder)
        config = self._config()
        prepare(config, tables={"interactions": interactions})
        train(config)
        return self

    def recommend(
        self, users: Sequence[Any] = (), k: int = 10, filter_viewed: bool = True,
        items_to_recommend: Sequence[Any] | None = None, new_users: Any = None,
    ) -> Any:  # fmt: skip
        """user_id, item_id, score and rank, in the kind of data frame that `fit` was given.

        new_users: in place of users, some whom `fit` never saw, see `dist_gat.serve.new_users_file`. Raises `DataError`
        for an unknown user, `ConfigError` before `fit`.
        """
        found = self.opened.recommend(
            users, k, new_users=new_users, candidates=items_to_recommend, filter_seen=filter_viewed
        )  # fmt: skip
        return self._as_given(found.select("user_id", "item_id", "score", "rank"))

    def similar(self, items: Sequence[Any], k: int = 10) -> Any:
        """The items whose representations are most like those of some items."""
        return self._as_given(self.opened.similar(items=items, k=k))

    @cached_property
    def opened(self) -> OpenedModel:
        if not hasattr(self, "place"):
            raise ConfigError("FrameRecommender: nothing was learned yet; call fit with a data frame of interactions")
        return open_whole(self._config().run_folder / "model")

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="dist-gat-frame-")

    def _config(self) -> Config:
        """Of the recipe in the folder, which is written anew."""
        places = {"run": str(self.place / "run"), "data.prepared": str(self.place / "prepared")}
        split = {"data.split.method": "random", "data.split.valid_ratio": self.validation, "data.split.test_ratio": 0.0}
        # the folder is all that this object trains in
        fixed = {**places, **split, "checkpoint.resume": "restart"}
        given = {**fixed, **(self.settings or {})}
        recipe = self.place / "recipe.yaml"
        self.place.mkdir(parents=True, exist_ok=True)
        write_text(recipe, yaml.safe_dump(RECIPE, sort_keys=False))
        return load_config(recipe, [f"{key}={_as_yaml(value)}" for key, value in given.items()])

    def _as_given(self, table: pl.DataFrame) -> Any:
        return table.to_pandas() if self.is_pandas else table


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
