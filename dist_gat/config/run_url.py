"""What a run at a URL can't do."""

from __future__ import annotations

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config


def refuse_run_url(config: Config, verb: str) -> None:
    """Raise `ConfigError` for a verb that keeps many runs in one folder."""
    if is_url(config.run):
        raise ConfigError(
            f"run={config.run}: `dist-gat {verb}` keeps its runs in a folder; set run=FOLDER, while "
            "data.prepared may be a URL"
        )
