"""`OpenedRun`: an opened model that also explains, from the data set that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import MANIFEST, sha256_of
from dist_gat.explain.explanation import explain_item
from dist_gat.explain.trained_run import RunSource, TrainedRun, open_trained_run
from dist_gat.serve.opened_model import OpenedModel


@dataclass(frozen=True, kw_only=True)
class OpenedRun(OpenedModel):
    """trained: opens the run and its data set, for the first explanation."""

    trained: Callable[[], TrainedRun]

    def explain(self, user: Any, item: Any = None, top: int = 10) -> dict[str, Any]:
        """What each interaction of a user contributes to an item's score; without an item the user's best new one.

        `explain_item` says what is in it. Raises `ConfigError` where a model folder was opened without its run,
        `DataError` for an unknown user or item, `StorageError` where the data set is missing or another one, or where
        the run has another model by the time of the first explanation.
        """
        return explain_item(self.trained(), str(user), None if item is None else str(item), top)


def with_run(model: OpenedModel, run: RunSource | None, overrides: Sequence[str] = ()) -> OpenedRun:
    """run: that the model is of; None: it has no explanations."""
    own = {field.name: getattr(model, field.name) for field in fields(model)}
    return OpenedRun(**own, trained=cache(partial(open_same_run, run, tuple(overrides), model.digest)))


def open_same_run(run: RunSource | None, overrides: Sequence[str], digest: str) -> TrainedRun:
    """The run with its data set, if it still has the model with this digest."""
    if run is None:
        raise ConfigError("a model folder is opened, and explanations need its run; open the run folder")
    opened = open_trained_run(run, overrides)
    if sha256_of(opened.saved.folder / MANIFEST) != digest:
        raise StorageError(f"{opened.folder}: another model took the place of the one that answers; open the run again")
    return opened
