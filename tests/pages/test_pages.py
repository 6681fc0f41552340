"""The pages of a run whose IDs, titles and paths are hostile: well-formed, escaped, self-contained, and complete."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import prepare_and_train, small_recipe

from dist_gat import api
from dist_gat.base.errors import StorageError
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.pages.explanation_page import explanation_page
from dist_gat.pages.figures import with_error
from dist_gat.pages.inspection_page import inspection_page

USER = "<script>alert(1)</script>"
ITEM = '"><img src=x onerror=alert(2)>'
TITLE = "</title></svg>' onload='alert(3)' {{ 7*7 }} &lt;b&gt;"
VOID = {"meta", "br", "img", "link", "input", "hr"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Checks that tags close in order, and collects texts, tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def check_page(html: str) -> Page:
    """A page that is well-formed and that neither runs nor loads anything."""
    page = Page(html)
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "bdi", "br", "table", "tr", "th", "td",
        "div", "span", "i", "small", "pre", "code", "svg", "g", "path", "rect", "text", "tspan", "line", "polyline",
        "circle",
    }  # fmt: skip
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert not re.findall(r"url\(|@import|https?://", html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    return page


def hostile_config(folder: Path) -> Config:
    tree = small_recipe(folder).model_dump(mode="json")
    return parse_config(tree | {"run": str(folder / "<img src=x onerror=alert(4)>"), "name": "hostile"})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A trained run in which one user, and every item, have such names."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "raw").mkdir()
    quoted = ITEM.replace('"', '""')
    rows = [
        f'{USER if user == 0 else f"u{user}"},"{quoted}{item}"' for user in range(40) for item in range(user % 3, 30, 3)
    ]
    (folder / "raw" / "interactions.csv").write_text("\n".join(["user_id,item_id", *rows]) + "\n")
    titles = [f'"{quoted}{item}","{TITLE}"' for item in range(30)]
    (folder / "raw" / "items.csv").write_text("\n".join(["item_id,title", *titles]) + "\n")
    config = hostile_config(folder)
    prepare_and_train(config)
    return config


@pytest.fixture(scope="module")
def explanation_html(hostile: Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pages") / "new" / "why.html"
    api.explain(hostile, USER, html=path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report_html(hostile: Config) -> str:
    api.evaluate(hostile)
    metrics = {"metrics": {"ndcg@20": 0.123456}, "note": "<b>" + TITLE}
    comparison = {
        "split": "test",
        "models": {TITLE: metrics, "itemknn": {"metrics": {"ndcg@20": 0.5}}, "als": {}, "x": 3},
    }
    (hostile.run_folder / "compare.json").write_text(json.dumps(comparison))
    assert api.report(hostile) == hostile.run_folder / "report.html"
    return (hostile.run_folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def inspection_html(hostile: Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pages") / "new" / "data.html"
    api.inspect(hostile.data.prepared, path)
    return path.read_text(encoding="utf-8")


def test_an_inspection_has_what_is_in_the_folder(hostile: Config, inspection_html: str) -> None:
    found = api.inspect(hostile.data.prepared)
    page = check_page(inspection_html)
    assert texts_of(inspection_html, "h2") == ["What is there?", "What to look at twice?", "How is it cut into parts?"]
    labels = {value for name, value in page.attributes if name == "aria-label"}
    assert labels == {"messages of a node, from: users, items", "messages by part"}
    text = "".join(page.texts)
    for part in found["parts"]:
        assert f"part {part['part']} {part['nodes']['user']:,} users, {part['nodes']['item']:,} items" in text
    assert f"{found['messages']:,}" in page.texts
    assert f"{found['pairs']['interacts']['train']:,}" in page.texts


def test_an_inspection_shows_hostile_names_as_text(hostile: Config) -> None:
    label = {"mean": 1.5, "min": 1.0, "max": 2.0, "levels": [1.0, 2.0], "counts": [3, 4]}
    found = api.inspect(hostile.data.prepared) | {
        "name": USER, "folder": ITEM, "labels": {USER: {TITLE: label}}, "dropped": {ITEM: 3}, "warnings": [TITLE],
        "repeated": {USER: {"rows": 7, "rules": {TITLE: "last"}}},
        "time": {"first": USER, "last": "1970-01-03T00:00:00+00:00"},
        "cold": {ITEM: {"nodes": 2, "pairs": {"valid": 0, "test": 5}}},
    }  # fmt: skip
    html = inspection_page(found)
    text = "".join(check_page(html).texts)
    assert f"Prepared data {USER}" in text
    assert f"{TITLE} of {USER}" in text
    for remark in (
        f"dropped: {ITEM}",
        f"7 rows of {USER} had a pair again, which stays once: {TITLE} last",
        f"cold {ITEM}s",
        "2 have no training pair; they are in 5 test pairs",
        "1970-01-03 00:00:00",
    ):
        assert remark in text, remark
    assert "<script" not in html


def test_an_explanation_shows_hostile_names_as_text(explanation_html: str) -> None:
    page = check_page(explanation_html)
    text = "".join(page.texts)
    assert f"for user {USER}" in text
    assert TITLE in text, "as it is, with its braces and entities"
    assert f"{ITEM}1" in text or f"{ITEM}2" in text
    assert "<script" not in explanation_html
    assert "<img" not in explanation_html


def test_an_explanation_has_the_picture_and_the_numbers(hostile: Config, explanation_html: str) -> None:
    found = api.explain(hostile, USER)
    page = check_page(explanation_html)
    boxes = page.tags.count("rect")
    assert boxes >= 2 + len(found["interactions"])
    assert page.tags.count("path") >= len(found["interactions"]) + 1
    widths = [float(value) for name, value in page.attributes if name == "stroke-width"]
    assert max(widths) == 10.0
    assert min(widths) >= 1.0
    cells = [text for text in page.texts if text.strip()]
    for entry in found["interactions"]:
        assert f"{entry['weight']:.4g}" in cells
    fidelity = found["fidelity"]
    assert f"{fidelity['random_drop_mean']:.4g} ± {fidelity['random_drop_std']:.4g}" in cells


def test_an_explanation_tells_recency_and_the_lists_without_an_edge(hostile: Config, explanation_html: str) -> None:
    found = api.explain(hostile, USER)
    assert "The list without one of them" in texts_of(explanation_html, "h2")
    rows = [texts_of(row, "td") for row in re.findall(r"<tr>.*?</tr>", explanation_html, re.DOTALL)]
    assert "rank, newest first" not in texts_of(explanation_html, "th"), "the data has no times"
    for entry in found["counterfactual"]["without"]:
        assert any(row[2:3] == [str(entry["place"])] and row[-1] == str(entry["own_place"]) for row in rows)
    dated = {"rank": 3, "seconds_before_newest": 864_000.0, "value": 4.5, "category": TITLE}
    edges = [{**found["interactions"][0], **dated}, *found["interactions"][1:]]
    html = explanation_page({**found, "interactions": edges})
    row = next(texts_of(row, "td") for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL) if "10 days" in row)
    assert row[2:5] == ["4.5", "3", "10 days"]
    assert TITLE in "".join(check_page(html).texts)


QUESTIONS = [
    "Is the model good?", "Is it still learning?", "For whom is it bad?", "What do the lists look like?",
    "What did it cost?", "Attention by degree", "Other curves", "What was run?",
]  # fmt: skip


def texts_of(html: str, tag: str) -> list[str]:
    return [re.sub("<[^>]*>", "", found) for found in re.findall(rf"<{tag}[ >].*?</{tag}>", html, re.DOTALL)]


def test_a_report_answers_in_order_with_numbers_and_curves(hostile: Config, report_html: str) -> None:
    page = check_page(report_html)
    text = "".join(page.texts)
    assert [heading.split(">")[-1] for heading in texts_of(report_html, "h2")] == QUESTIONS
    labels = {value for name, value in page.attributes if name == "aria-label"}
    assert {"Validation: NDCG@20", "loss", "recall@10, recall@20", "learning rate", "layer 1, layer 2"} <= labels
    assert any({"sample", "compute", "stall"} <= set(label.split(", ")) for label in labels)
    assert {
        "NDCG@20 of this run and of others",
        "Users by activity: NDCG@20",
        "Items by popularity: Recall@20",
    } <= labels
    results = json.loads((hostile.run_folder / "evaluation.json").read_text())
    headline = texts_of(report_html, "p")[1]
    assert headline.startswith(with_error(results["test"]["ndcg@20"], results["spread"]["test"]["ndcg@20"]))
    assert "standard error" in text
    for name in (
        "Item neighbours",
        "Recall@20",
        "Coverage@20",
        "Time of training",
        "Peak memory, all workers",
        "Share of",
    ):
        assert name in text
    assert re.search(r"\d (MB|GB)", text)
    assert "Version of torch" in page.texts
    assert torch.__version__ in page.texts
    assert TITLE in text
    assert "0.123" in page.texts
    assert "<img src=x onerror=alert(4)>" in text, "in the configuration"
    assert "earlier model" not in text
    for key in ("peak_memory_bytes", "num_users", "slices /", "ndcg@20 /", "hit_rate@"):
        assert key not in text.partition("Other curves")[0], "names are for people"


@pytest.fixture(scope="module")
def click_html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of clicks, with new items, and without a comparison."""
    folder = tmp_path_factory.mktemp("clicks")
    (folder / "raw").mkdir()
    rows = [f"u{user},i{item},{(user * item) % 3 % 2}" for user in range(30) for item in range(user % 2, 24, 2)]
    random.Random(0).shuffle(rows)
    new = [f"u{user},new,1" for user in range(3)]
    for name, lines in (("train", rows[:250]), ("valid", rows[250:300]), ("test", rows[300:] + new)):
        (folder / "raw" / f"{name}.csv").write_text("\n".join(["user_id,item_id,weight", *lines]) + "\n")
    config = small_recipe(folder).model_dump(mode="json")
    config["data"] |= {"interactions": None, "item_titles": None, "split": {"method": "files"}} | {
        name: f"{name}.csv" for name in ("train", "valid", "test")
    }
    config["model"]["decoder"] = {"kind": "dot"}
    del config["train"]["metric"]
    parsed = parse_config(config | {"task": {"kind": "click"}})
    prepare_and_train(parsed)
    api.evaluate(parsed)
    return api.report(parsed).read_text(encoding="utf-8")


def test_the_report_of_clicks_has_their_pictures(click_html: str) -> None:
    page = check_page(click_html)
    text = "".join(page.texts)
    labels = {value for name, value in page.attributes if name == "aria-label"}
    assert {"share of 1s by mean prediction", "precision by recall", "prediction: label 0, label 1"} <= labels
    for words in ("Where is it wrong?", "where F1 was best on validation", "predicted 1", "run dist-gat compare"):
        assert words in text
    assert "New items" in page.texts
    assert "undefined" in text, "the AUC of new items, which are all 1"
    assert ("class", "bar cold") not in page.attributes


def test_a_report_of_a_run_that_has_little_says_what_is_missing(
    hostile: Config, report_html: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(hostile.run_folder / "tensorboard", run / "tensorboard")
    shutil.copy(hostile.run_folder / "config.yaml", run)
    path = api.report(run, tmp_path / "out.html")
    text = "".join(check_page(path.read_text()).texts)
    assert "Not evaluated yet" in text
    assert "Can't be computed" in text
    assert "dist-gat train" in text
    (run / "evaluation.json").write_text(json.dumps({"valid": {"recall@20": 0.5}, "model_sha256": "0" * 64}))
    assert "earlier model" in api.report(run).read_text()
    (run / "evaluation.json").write_text("{")
    with pytest.raises(StorageError, match="evaluation.json.*dist-gat evaluate"):
        api.report(run)
    shutil.rmtree(run / "tensorboard")
    with pytest.raises(StorageError, match="no TensorBoard event files"):
        api.report(run)


def test_a_run_without_layers_is_verified_too(hostile: Config, tmp_path: Path) -> None:
    sampling = hostile.sampling.model_copy(update={"fanouts": []})
    config = hostile.model_copy(update={"run": str(tmp_path / "run"), "sampling": sampling})
    api.train(config)
    said: list[str] = []
    html = api.report(config, verify=True, progress=said.append).read_text()
    assert sum(message.startswith("checking the SHA-256") for message in said) == 2
    assert "has no attention layer" in html


def test_a_page_that_cannot_be_written_is_an_error(hostile: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another file"):
        api.explain(hostile, USER, html=tmp_path / "file" / "page.html")


def test_a_new_run_in_the_folder_forgets_the_evaluation(tmp_path: Path, hostile: Config) -> None:
    from dist_gat.base.run_folder import clear_run
    from dist_gat.workflows.run import LEFT_BY_RUNS

    (tmp_path / "evaluation.json").write_text("{}")
    clear_run(tmp_path, LEFT_BY_RUNS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["explanation_html", "report_html", "click_html", "inspection_html"])
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
def test_a_browser_shows_the_page(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Chromium lays the page out, runs nothing of it, and its picture is not blank."""
    html = request.getfixturevalue(which)
    (tmp_path / "page.html").write_text(html)
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip

    def chromium(*arguments: str) -> str:
        command = [str(CHROMIUM), *flags, *arguments, (tmp_path / "page.html").as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    dom = chromium("--dump-dom")
    assert Page(html).tags.count("svg") == dom.count("<svg") >= 1
    assert "<script" not in dom
    chromium(f"--screenshot={tmp_path / 'page.png'}", "--window-size=1100,1400")
    assert (tmp_path / "page.png").stat().st_size > 20_000, "a blank page compresses to a few kB"


def page_with(**changes: Any) -> str:
    """A page that breaks one rule."""
    parts = {"policy": "default-src 'none'; style-src 'unsafe-inline'", "body": "<p>good</p>", **changes}
    meta = f'<meta http-equiv="Content-Security-Policy" content="{parts["policy"]}">'
    return f"<!DOCTYPE html><html><head>{meta}</head><body>{parts['body']}</body></html>"


def test_the_checks_pass_a_good_page() -> None:
    check_page(page_with())


@pytest.mark.parametrize(
    "changes",
    [
        {"body": f"<p>{USER}</p>"},
        {"body": "<img src=x>"},
        {"body": "<p onload='x'>a</p>"},
        {"body": "<p><bdi>a</p></bdi>"},
        {"body": "<p style='background:url(x)'>a</p>"},
        {"policy": "default-src *"},
    ],
)
def test_the_checks_find_a_bad_page(changes: dict[str, str]) -> None:
    with pytest.raises((AssertionError, IndexError)):
        check_page(page_with(**changes))
