"""The real server over HTTP: the bits of `recommend`, in any batch; errors in words; another model under load."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from recipes import small_recipe
from server_cases import Running, flat, running_server, wait_until_ready

from dist_gat import api
from dist_gat.base.json_text import to_json

NEW = {"user": "ann", "items": ["i3", "i7", "i12"], "weights": [5, 1, 3]}


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose model may be replaced."""
    return Path(shutil.copytree(small_run / "run", tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Running]:
    with running_server(run, "--watch-s", "0.2") as server:
        yield server


def rows(run: Path, *users: str, k: int = 10) -> list[tuple[Any, ...]]:
    return api.recommend(run, users, k).select("user_id", "item_id", "score", "rank").rows()


def test_the_bits_of_recommend_for_one_for_a_batch_and_for_many_at_once(server: Running, run: Path) -> None:
    users = [f"u{n}" for n in range(40)]
    answer = server.post("/recommend", users=users, k=7).json()
    assert flat(answer) == rows(run, *users, k=7)
    assert answer["recommendations"][0]["items"][0]["title"]

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            asked = [client.post("/recommend", json={"users": [user], "k": 1 + n % 7}) for n, user in enumerate(users)]
            return await asyncio.gather(*reversed(asked))

    for n, found in enumerate(reversed(asyncio.run(ask_all()))):
        assert flat(found.json()) == rows(run, users[n], k=7)[: 1 + n % 7]


def test_new_users_candidates_scores_and_neighbours_are_those_of_python(server: Running, run: Path) -> None:
    model = api.open(run)
    answer = server.post("/recommend", new_users=[NEW, {"items": ["i1"]}], k=4, exclude=["i9"]).json()
    expected = model.recommend(new_users=[NEW, {"user": "new", "items": ["i1"]}], k=4, exclude=["i9"])
    assert flat(answer) == expected.select("user_id", "item_id", "score", "rank").rows()
    chosen = server.post("/recommend", users=["u3"], candidates=["i5", "i6", "nothing"], filter_seen=False).json()
    assert {item for _, item, _, _ in flat(chosen)} == {"i5", "i6"}
    assert "'nothing'" in chosen["notes"][0]
    scores = server.post("/score", user="u3", items=["i6", "i5"]).json()["scores"]
    assert scores == model.score("u3", ["i6", "i5"]).to_dicts()
    assert {(one["item_id"], one["score"]) for one in scores} == {(i, s) for _, i, s, _ in flat(chosen)}
    of_new = server.post("/score", new_user=NEW, items=["i6"]).json()["scores"]
    assert of_new == model.score(None, ["i6"], NEW).to_dicts()
    similar = server.post("/similar", items=["i5", "i6"], k=3).json()["similar"]
    expected = model.similar(items=["i5", "i6"], k=3)
    assert [(one["id"], *near.values()) for one in similar for near in one["similar"]] == expected.rows()
    assert len(server.post("/similar", users=["u5"], k=3).json()["similar"][0]["similar"]) == 3
    why = server.post("/explain", user="u3", item="i5", top=2).json()["explanation"]
    assert why == json.loads(to_json(model.explain("u3", "i5", 2)))
    assert (why["item"]["item_id"], len(why["interactions"])) == ("i5", 2)
    assert why["score"] == pytest.approx(scores[1]["score"], rel=1e-4)


def test_new_items_stand_beside_the_known_ones_as_in_python(server: Running, run: Path) -> None:
    items = [{"item": "fresh", "users": ["u3", "u4", "nobody"]}, {"item": 77, "users": ["u5"]}]
    answer = server.post("/recommend", users=["u3", "u6"], k=100, new_items=items).json()
    model = api.open(run)
    assert flat(answer) == model.recommend(["u3", "u6"], 100, new_items=items).drop("title").rows()
    assert [user for user, item, *_ in flat(answer) if item == "fresh"] == ["u6"], "u3 has met it"
    assert "'nobody'" in answer["notes"][0]
    found = server.post("/score", user="u3", items=["77", "i5"], new_items=items).json()["scores"]
    assert found == model.beside(items).score("u3", ["77", "i5"]).to_dicts()
    assert server.post("/score", user="u3", items=["77"]).status_code == 404, "nothing is kept"


WRONG: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/recommend", b'{"users": ["u1"', 400, "no valid JSON"),
    ("POST", "/recommend", b"\xff\xfe", 400, "JSON"),
    ("POST", "/recommend", b"[" * 100_000, 400, "JSON"),
    ("POST", "/recommend", {"users": ["u1", "nobody"]}, 404, "unknown user 'nobody'"),
    ("POST", "/recommend", {"users": [True]}, 422, "users.0"),
    ("POST", "/recommend", {"users": ["u1"], "k": 0}, 422, "k: "),
    ("POST", "/recommend", {"users": ["u1"], "k": 10**9}, 422, "k: "),
    ("POST", "/recommend", {"users": ["u1"] * 1001}, 422, "users: "),
    ("POST", "/recommend", {"users": ["u" * 5000]}, 422, "users.0"),
    ("POST", "/recommend", {"users": ["u1"] * 1000, "k": 1000}, 422, "users times k are 1,000,000"),
    ("POST", "/recommend", {"users": ["u1"] * 900, "exclude": ["i1"] * 9000}, 422, "excluded items are 8,100,000"),
    ("POST", "/similar", {"items": ["i1"] * 1000, "k": 1000}, 422, "times k are 1,000,000"),
    ("POST", "/recommend", {"users": ["u1"], "new_users": [NEW]}, 422, "either users or new_users"),
    ("POST", "/recommend", {"users": ["u1"], "path": "/etc/passwd"}, 422, "path"),
    ("POST", "/recommend", {"new_users": [{"items": ["i1"], "weights": [1, 2]}]}, 422, "weights is no list of 1"),
    ("POST", "/recommend", {"new_users": [{"items": ["i1"], "columns": {"age": 3}}]}, 422, "no column 'age'"),
    ("POST", "/recommend", {"users": ["u1"], "new_items": [{"item": "i3"}]}, 422, "is known to the model"),
    ("POST", "/recommend", {"users": ["u1"], "new_items": [{"item": "x"}] * 101}, 422, "new_items: "),
    ("POST", "/recommend", {"users": ["u1"], "new_items": [{"item": "x", "path": "y"}]}, 422, "new_items.0.path"),
    ("POST", "/recommend", {"users": ["u1"], "new_items": [{"item": "x", "relations": {"tags": []}}]}, 422, "tags"),
    ("POST", "/score", {"user": "u1", "items": ["i1", "none"]}, 404, "unknown item 'none'"),
    ("POST", "/score", {"user": "u1", "items": []}, 422, "items"),
    ("POST", "/similar", {"items": ["i1"], "users": ["u1"]}, 422, "either items or users"),
    ("POST", "/explain", {"user": "nobody"}, 404, "nobody"),
    ("GET", "/recommend", None, 405, "GET /recommend"),
    ("GET", "/../config.yaml", None, 404, "Not Found"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), WRONG)
def test_an_error_is_json_that_says_what_and_what_to_do(
    server: Running, method: str, path: str, body: Any, status: int, words: str
) -> None:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    headers = {"content-type": "application/json"}
    found = server.client.request(method, path, headers=headers, **sent)  # type: ignore[arg-type]
    assert found.status_code == status, found.text
    error = found.json()["error"]
    assert error.keys() == {"what", "expected", "remedy"}
    assert words in " ".join(str(part) for part in error.values())
    assert error["remedy"]


def test_metrics_health_and_the_page_of_paths(server: Running) -> None:
    server.post("/recommend", users=["u1"])
    model = server.client.get("/health/live").json()["model"]
    metrics = server.client.get("/metrics").text
    assert f'dist_gat_model{{digest="{model}"}} 1.0' in metrics
    assert 'dist_gat_requests_total{path="/recommend",status="200"}' in metrics
    assert "dist_gat_waiting_users 0" in metrics
    assert "/recommend" in server.client.get("/openapi.json").json()["paths"]
    assert "openapi.json" in server.client.get("/docs").text


def test_a_page_that_names_this_machine_otherwise_is_refused(server: Running) -> None:
    found = server.client.get("/metrics", headers={"host": "evil.example"})
    assert (found.status_code, "evil.example" in found.json()["error"]["what"]) == (403, True)
    assert server.client.get("/metrics", headers={"host": "localhost:1"}).status_code == 200


def test_another_model_takes_over_under_load_and_no_answer_is_mixed(
    server: Running, run: Path, small_run: Path
) -> None:
    config = small_recipe(small_run).model_copy(update={"run": str(run.parent / "other"), "seed": 5})
    api.train(config.model_copy(update={"train": config.train.model_copy(update={"num_epochs": 1})}))
    before, after = api.open(run), api.open(run.parent / "other")
    expected = {
        model.digest: {f"u{n}": model.recommend([f"u{n}"], 5)["item_id"].to_list() for n in range(30)}
        for model in (before, after)
    }
    assert expected[before.digest] != expected[after.digest]
    seen, over = list[str](), time.monotonic() + 60

    async def ask(client: httpx.AsyncClient, first: int) -> None:
        while (not seen or seen[-1] != after.digest or len(seen) < 300) and time.monotonic() < over:
            users = [f"u{(first + n) % 30}" for n in range(3)]
            found = await client.post("/recommend", json={"users": users, "k": 5})
            assert found.status_code == 200, found.text
            answer = found.json()
            lists = {one["user_id"]: [item["item_id"] for item in one["items"]] for one in answer["recommendations"]}
            assert lists == {user: expected[answer["model"]][user] for user in users}
            seen.append(answer["model"])

    async def swap() -> None:
        while len(seen) < 100 and time.monotonic() < over:
            await asyncio.sleep(0.01)
        (run / "model").rename(run / ".model.old-1")
        (run.parent / "other" / "model").rename(run / "model")

    async def load() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            await asyncio.gather(swap(), *(ask(client, first) for first in range(8)))

    asyncio.run(load())
    assert set(seen) == {before.digest, after.digest}
    assert "dist_gat_reloads_total 1.0" in server.client.get("/metrics").text
    # a model that can't be opened changes nothing
    (run / "model").rename(run / ".model.old-2")
    shutil.copytree(run / ".model.old-2", run / "model")
    manifest = (run / "model" / "manifest.json").read_text()
    (run / "model" / "manifest.json").write_text(manifest.replace('"version"', '"versoin"'))
    found = server.client.post("/reload")
    assert (found.status_code, "versoin" in found.text or "version" in found.text) == (503, True)
    assert flat(server.post("/recommend", users=["u1"]).json())
    assert "format" in server.client.get("/health/ready").json()["trouble"]
    shutil.rmtree(run / "model")
    (run / ".model.old-2").rename(run / "model")
    assert server.client.post("/reload").json() == {"model": after.digest, "changed": False}
    assert server.client.get("/health/ready").json()["trouble"] is None


@pytest.mark.slow
def test_replicas_have_one_another_s_bits_and_a_killed_one_comes_back(small_run: Path) -> None:
    import psutil

    expected = rows(small_run / "run", "u1", "u2", k=5)
    with running_server(small_run / "run", "--replicas", "2", "--index-probes", "1000") as server:

        def replicas() -> set[int]:
            children = psutil.Process(server.process.pid).children()
            return {one.pid for one in children if "spawn_main" in " ".join(one.cmdline())}

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:  # each a connection of its own
                assert flat(client.post("/recommend", json={"users": ["u1", "u2"], "k": 5}).json()) == expected

        for _ in range(30):
            ask()
        before = replicas()
        assert len(before) == 2
        psutil.Process(min(before)).kill()
        time.sleep(0.5)
        for _ in range(30):
            ask()
        end = time.monotonic() + 60
        while len(replicas() - before) < 1 and time.monotonic() < end:
            time.sleep(0.2)
        assert len(replicas()) == 2
        wait_until_ready(server.client)
        assert "dist_gat_index_recall 1.0" in server.client.get("/metrics").text
