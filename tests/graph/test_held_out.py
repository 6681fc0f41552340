"""What `prepare` says where little is held out, on tables whose split leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipes import recipe

from dist_gat import api
from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config

Rows = list[tuple[int, int, int]]
DAY = 86_400
# users of their own at the end of time, and one who stays
COLD = [(user, item, DAY * user) for user in range(20) for item in range(5)]
LONE = [(user, user % 7, user) for user in range(30)]


def prepared(folder: Path, rows: Rows, split: dict[str, Any], **data: Any) -> tuple[Config, list[str]]:
    (folder / "raw").mkdir()
    lines = [",".join(map(str, row)) for row in rows]
    (folder / "raw" / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    config = recipe(folder, data={"split": split, **data}, train={"num_epochs": 1})
    return config, api.prepare(config)["warnings"]


@pytest.mark.parametrize(
    ("rows", "split", "words"),
    [
        (COLD, {"method": "temporal"}, ["valid: 0 of 10 interactions are left", "test: 0 of 10 interactions are left"]),
        (LONE, {"method": "leave_last_out"}, ["valid: no interaction", "test: no interaction is left: no user has"]),
        (LONE, {"method": "random", "valid_ratio": 0, "test_ratio": 0}, ["all 30 interactions are for training"]),
        (COLD, {"method": "random", "valid_ratio": 0.001, "test_ratio": 0.1}, ["valid: no interaction is left: its"]),
    ],
)
def test_a_split_that_leaves_little_is_told_with_numbers(
    tmp_path: Path, rows: Rows, split: dict[str, Any], words: list[str]
) -> None:
    _, warnings = prepared(tmp_path, rows, split)
    assert len(warnings) == len(words)
    assert all(word in text for word, text in zip(words, warnings, strict=True))


@pytest.mark.parametrize(
    "split",
    [
        {"method": "random"},
        {"method": "random", "valid_ratio": 0},
        {"method": "random", "merge_valid": True},
        {"method": "leave_last_out"},
    ],
)
def test_what_is_meant_is_no_warning(tmp_path: Path, split: dict[str, Any]) -> None:
    assert prepared(tmp_path, COLD, split)[1] == []


def test_training_on_everything_ends_well_and_what_measures_says_why_not(tmp_path: Path) -> None:
    config, _ = prepared(tmp_path, COLD, {"method": "temporal"})
    assert api.train(config)["valid"] == {}
    for verb in (api.evaluate, api.fit, lambda config: api.compare(config, ["popularity"])):
        with pytest.raises(DataError, match="no test or validation pairs, so nothing can be measured; set data.split"):
            verb(config)
    page = api.report(config).read_text(encoding="utf-8")
    assert "Nothing can be measured: there are no validation and no test pairs" in page
    assert "Not evaluated yet" not in page
