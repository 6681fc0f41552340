"""`write_first_recipe`: from the head of a table to a recipe that runs, with comments that say what was guessed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import write_text
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.files import parse_config
from dist_gat.config.plain_yaml import parse_yaml
from dist_gat.data.guess_columns import Guess, Guesses, guess_columns
from dist_gat.data.source import Source, open_source, read_head

MOST_ROWS = 2_000_000
FIELDS = ("shop", "social", "music", "video", "news")
# where there are times: what is sold, read or watched next is of its day; what friends like or listen to is of a user
SPLITS = {
    "shop": "temporal", "news": "temporal", "video": "temporal", "social": "leave_last_out", "music": "leave_last_out",
}  # fmt: skip
COLUMNS = {"user": "user_id", "item": "item_id", "label": "weight", "time": "datetime"}
YAML_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
SAMPLING = "sampling: {fanouts: [10]}                    # one attention layer; [10, 10] for two\n"
ATTENTION = """\
  scoring: degree
  terms: [degree]                            # attention learns how far to depart from degrees
"""
BLEND = "blend: {spectral_rank: 128, linear: true}    # closed-form scores beside the model's; validation weighs them\n"
# where there are times: what comes next hangs on what came last
SAMPLING_BY_TIME = "sampling: {fanouts: [50], strategy: recent, time: strict}   # the newest of what came before\n"
ATTENTION_BY_TIME = """\
  scoring: uniform
  terms: [rank, age]                         # attention learns how much the newest count
"""
BLEND_BY_TIME = """\
blend: {spectral_rank: 128, linear: true, half_life: [null, 20, 5]}   # closed-form scores; validation weighs them
"""
PAIRS = """\
model: {embedding_size: 64, scoring: degree, residual: false}
loss: {l2: 0.01}                             # larger where the validation metric gets worse after the first epochs
"""
TASKS = {
    "ranking": "",
    "rating": "task: {kind: rating}                         # metrics: rmse, mae\n",
    "click": "task: {kind: click, calibration: temperature}   # metrics: auc, log_loss and others\n",
    "count": "task: {kind: count, likelihood: negative_binomial}   # metrics: deviance, rmse_log, mae\n",
}


def write_first_recipe(
    field: str,
    tables: str | Path | Sequence[str | Path],
    output: Path | None = None,
    given: Mapping[str, str] | None = None,
    force: bool = False,
    header: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a recipe for a table of interactions: user, item, and perhaps a label and a time.

    field: one of `FIELDS`, which picks the split and other defaults. output: by default configs/NAME.yaml; its name is
    the recipe's. given: columns by role, for what is not to be guessed, as in `guess_columns`. Returns `recipe`, its
    file, `kind`, and the `guesses` with their reasons. Raises `DataError` where the table can't be read or used,
    `ConfigError` for an unknown field, and where there is a file already, unless `force`.
    """
    if field not in FIELDS:
        raise ConfigError(f"--for {field}: expected one of {', '.join(FIELDS)}")
    given_header = {"header": list(header)} if header else {}
    names = [os.path.abspath(name) for name in ([tables] if isinstance(tables, str | Path) else tables)]
    source = open_source(names, DataConfig.model_validate({"interactions": names, **given_header}), "the tables")
    guesses = guess_columns(read_head(source, MOST_ROWS), given, counts=field == "music")
    name = recipe_name(output or Path(names[0]))
    output = output or Path("configs") / f"{name}.yaml"
    if output.exists() and not force:
        raise ConfigError(
            f"{output}: there is a file already; choose another with --output, or replace it with --force"
        )
    text = recipe_text(field, name, source, names, guesses)
    parse_config(parse_yaml(text, str(output)), str(output))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, text)
    except OSError as err:
        raise StorageError(f"{output}: can't be written: {err}; choose another place with --output") from None
    return {
        "recipe": str(output),
        "kind": guesses.kind,
        "guesses": [{"what": "what to predict", "guess": guesses.kind, "why": guesses.why_kind}]
        + [
            {"what": role, "guess": guess.column if guess else "none", "why": guess.why if guess else "no column fits"}
            for role, guess in roles_of(guesses).items()
        ],
    }


def roles_of(guesses: Guesses) -> dict[str, Guess | None]:
    return {"user": guesses.user, "item": guesses.item, "label": guesses.label, "time": guesses.time}


def recipe_name(file: Path) -> str:
    """Of the file, or of its folder where the file is only part of a set."""
    stem = file.absolute().parent.name if file.stem.lower() in ("train", "interactions") else file.stem
    return re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-._") or "first"


def recipe_text(field: str, name: str, source: Source, tables: Sequence[str], guesses: Guesses) -> str:
    """The YAML. What comes from the table is quoted, and does not stand in comments."""
    folder = os.path.commonpath([os.path.dirname(table) for table in tables])
    files = [_quoted(os.path.relpath(table, folder)) for table in tables]
    listed = files[0] if len(files) == 1 else f"[{', '.join(files)}]"
    data = [f"  path: {_quoted(folder)}", f"  interactions: {listed}"]
    if source.style.header is not None:
        data.append(f"  header: [{', '.join(map(_quoted, source.style.header))}]")
    columns = []
    for role, guess in roles_of(guesses).items():
        if guess is None:
            columns.append(f"    # {role}: none")
        else:
            columns.append(f"    {COLUMNS[role]}: {_quoted(guess.column)}  # {role}: {guess.why}")
    if guesses.num_bad:
        data.append(f"  skip_bad_rows: true  # {guesses.num_bad} of {guesses.num_rows} rows lack an ID")
    if guesses.num_repeated:
        rule = (
            "their values are added up"
            if guesses.kind == "count"
            else "the last stays"
            if guesses.label
            else "one stays"
        )
        data.append(
            f"  repeated: auto  # {guesses.num_repeated} of {guesses.num_rows} rows have a pair again: {rule}; or "
            "first, "
            "last, sum, max, count"
        )
    if guesses.kind == "click":
        data.append("  min_message_weight: 1  # a 0 carries no message, and is predicted all the same")
    if guesses.time:
        method = SPLITS[field]
        ratios = "" if method == "leave_last_out" else ", valid_ratio: 0.1, test_ratio: 0.1"
        data.append(f"  split: {{method: {method}{ratios}}}  # or random")
    else:
        data.append("  split: {method: random, valid_ratio: 0.1, test_ratio: 0.1}  # there are no times")
    head = [
        f"# Written by `dist-gat init --for {field}`. Every line is a guess that you may change; what else there is:",
        "# docs/configuration.md. What the columns were taken for stands beside them.",
        f"# Predicts: {guesses.kind}, because {guesses.why_kind}.",
        f"name: {_quoted(name)}",
        "data:",
        *data,
        "  columns:",
        *columns,
        f"  prepared: {_quoted(f'prepared/{name}')}",
        "parts: {num_parts: 4, method: metis}",
    ]
    by_time = guesses.kind == "ranking" and guesses.time is not None
    baselines = "popularity, itemknn-recent, markov" if by_time else "popularity, itemknn"
    body = SAMPLING_BY_TIME if by_time else SAMPLING
    body += TASKS[guesses.kind]
    body += ranking_text(by_time) if guesses.kind == "ranking" else PAIRS
    # of counts with a long tail, the other metrics hang on a few pairs
    metric = ", metric: rmse_log" if guesses.kind == "count" else ""
    size = batch_size(guesses.num_rows)
    tail = [
        f"train: {{num_epochs: 20, batch_size: {size}, learning_rate: 0.01, patience: 3{metric}}}",
        *([f"evaluate: {{ks: [10, 20], baselines: [{baselines}]}}"] if guesses.kind == "ranking" else []),
        "launch: {launcher: local, num_workers: 1}   # launcher: ray for several workers and hosts",
    ]
    return "\n".join(head) + "\n" + body + "\n".join(tail) + "\n"


def ranking_text(by_time: bool) -> str:
    """What a recipe that ranks says of negatives, model and blend."""
    return (
        "negatives: {num_shared: 256, in_batch: true}\nmodel:\n  embedding_size: 64\n"
        + (ATTENTION_BY_TIME if by_time else ATTENTION)
        + "  residual: false\n  decoder: {kind: cosine, temperature: 0.15, popularity: true}\n"
        + (BLEND_BY_TIME if by_time else BLEND)
    )


def batch_size(num_rows: int) -> int:
    """A power of two, so that an epoch of a small table has some hundred steps."""
    return max(256, min(4096, 1 << (num_rows // 100).bit_length() - 1 if num_rows >= 100 else 0))


def _quoted(text: str) -> str:
    """A YAML string; plain where that is safe."""
    return (
        text
        if re.fullmatch(r"[A-Za-z_/][\w./-]*", text, re.ASCII) and text.lower() not in YAML_WORDS
        else json.dumps(text, ensure_ascii=False)
    )
