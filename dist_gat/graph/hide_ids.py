"""What `prepare` with pseudonyms must not do, and must not say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, DataError, DistGatError
from dist_gat.base.storage import MANIFEST
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.pseudonyms import Pseudonyms
from dist_gat.graph.part import open_prepared


def check_pseudonyms(data: DataConfig, pseudonyms: Pseudonyms | None) -> None:
    """Raise `ConfigError` for what is matched with IDs outside of the tables, and for a folder with pseudonyms that
    would be replaced by one without."""
    target = Path(data.prepared)
    if pseudonyms is None:
        if (target / MANIFEST).exists():
            refuse_clear_ids(str(target), open_prepared(target).manifest)
        return
    refused = {
        "data.relations.NAME.same_as": any(one.same_as for one in data.relations.values()),
        "data.split.cold_items, a file": isinstance(data.split.cold_items, str),
        "data.split.cold_users, a file": isinstance(data.split.cold_users, str),
        "columns of vectors": any(
            column.config.kind == "vector" for columns in data.node_columns.values() for column in columns
        ),
    }
    if found := [name for name, is_there in refused.items() if is_there]:
        raise ConfigError(
            f"--pseudonymize: {', '.join(found)}: matched with IDs as they are, which prepare with pseudonyms does not "
            "do yet; leave it out"
        )


def refuse_clear_ids(target: str, manifest: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a data set has pseudonyms. target: where it is."""
    if "pseudonyms" in manifest:
        raise ConfigError(
            f"data.prepared={target} has pseudonyms, and would be replaced by clear IDs: give the key with "
            "`dist-gat prepare --pseudonymize KEYFILE`, or delete the folder first"
        )


@contextmanager
def reasons_withheld(pseudonyms: Pseudonyms | None) -> Iterator[None]:
    """With pseudonyms, no error quotes a table, one that nobody foresaw included."""
    try:
        yield
    except Exception as err:
        is_told = isinstance(err, DistGatError | OSError) and not isinstance(err, DataError)
        if pseudonyms is None or is_told:
            raise
        raise DataError(
            "the tables can't be used as they are; the reason may quote IDs, so --pseudonymize withholds it: run "
            "`dist-gat prepare` without it, where IDs may be seen and with data.prepared=FOLDER, to read it"
        ) from None
