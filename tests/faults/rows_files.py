"""Rows of bad input and of damaged parts: refused with the reason, and nothing half is left."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.bad_inputs import FEATURES, GOOD, GOOD_LINES, ITEMS, KINDS, TITLES, WHOLE, BadInput
from faults.board import row
from faults.hostile import config_of, contents, prepare_tiny, refused, rewrite_manifest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from dist_gat import api
from dist_gat.base.errors import ClusterError, DistGatError, StorageError
from dist_gat.base.storage import END_BYTES, MANIFEST
from dist_gat.config.sections import Config
from dist_gat.graph.part import open_prepared

NUM_EXAMPLES = 60  # of random files, for each format


def check_kind(case: BadInput, folder: Path, before: dict[str, str]) -> None:
    """Refused with its text, over what stands there and over nothing; dropped and counted if it may be."""
    data = case.write(folder / "in")
    for name in ("out", "fresh"):
        config = config_of(folder, {**data, "prepared": str(folder / name / "prepared")})
        message = refused(lambda config=config: api.prepare(config))  # type: ignore[misc]
        missing = [text for text in case.expected if text not in message]
        assert not missing, f"{case.kind}: {missing} is not in: {message[:500]}"
        assert len(message) < 2000, f"{case.kind}: a message of {len(message)} characters"
    assert contents(folder / "out") == before, f"{case.kind}: what was prepared before has changed"
    left = [str(path) for path in folder.rglob("*") if "fresh" in path.parts and path.name != "fresh"]
    assert not left, f"{case.kind}: left {left}"

    config = config_of(folder, {**data, "skip_bad_rows": True, "prepared": str(folder / "fresh" / "prepared")})
    if case.dropped:
        counted = sum(api.prepare(config)["dropped"].values())
        assert counted == case.dropped, f"{case.kind}: {counted} rows counted as dropped, not {case.dropped}"
        assert [path.name for path in (folder / "fresh").iterdir()] == ["prepared"]
    else:
        refused(lambda: api.prepare(config))


@row(
    11,
    f"{len(KINDS)} kinds of bad input rows and files, and random ones besides",
    "refused with the row; with --skip-bad-rows counted; nothing written under a final name",
    is_quick=True,
)
def bad_input(folder: Path) -> str:
    standing = BadInput("", {"t.csv": GOOD}, ()).write(folder / "good")
    api.prepare(config_of(folder, standing))
    before = contents(folder / "out")
    for number, case in enumerate(KINDS):
        place = folder / str(number)
        place.mkdir()
        (folder / "out").rename(place / "out")
        check_kind(case, place, before)
        (place / "out").rename(folder / "out")
    assert len({case.kind for case in KINDS}) == len(KINDS) >= 40
    num_refused = sum(random_files(folder / f"random-{name}", name, good) for name, good in GOOD_FILES.items())
    num_rows = sum(bool(case.dropped) for case in KINDS)
    return (
        f"{len(KINDS)} kinds refused, {num_rows} of them of rows, which were counted when skipped; of "
        f"{NUM_EXAMPLES * len(GOOD_FILES)} random files {num_refused} refused and the others prepared"
    )


GOOD_FILES = {"t.csv": GOOD.encode(), "t.tsv": GOOD.replace(",", "\t").encode(), "t.txt": GOOD_LINES.encode(),
              "t.inter": GOOD.replace(",", "\t").encode(), "t.parquet": WHOLE, "items.csv": ITEMS.encode()}  # fmt: skip


SPICES = [
    b"",
    b"\0",
    b'"',
    b"\n",
    b"\r",
    b",",
    b"\t",
    b";",
    b" ",
    b"nan",
    b"-",
    b"9" * 25,
    b"\xef\xbb\xbf",
    b"\xff",
    b"\x1f\x8b",
]


@st.composite
def mutations(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with a few places overwritten."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.sampled_from([0, 1, 4, 30, len(content)]))
        content[start:stop] = draw(st.sampled_from(SPICES) | st.binary(max_size=20))
    return bytes(content)


def random_files(place: Path, name: str, good: bytes) -> int:
    """Prepare from random bytes and from mutations of a good file; returns how many were refused.

    Each is refused with an error of ours and leaves nothing, or is prepared whole.
    """
    data = BadInput("", {"t.csv": GOOD, name: good}, ()).write(place)
    data |= {**FEATURES, **TITLES} if name == "items.csv" else {"interactions": name}
    outcomes = {"refused": 0, "prepared": 0}

    @seed(0)
    @settings(max_examples=NUM_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(content=st.one_of(st.binary(max_size=300), mutations(good)), skip=st.booleans())
    def check(content: bytes, skip: bool) -> None:
        (place / name).write_bytes(content)
        config = config_of(place, {**data, "skip_bad_rows": skip})
        try:
            api.prepare(config)
        except DistGatError:
            outcomes["refused"] += 1
        else:
            open_prepared(config.data.prepared, verify=True)
            outcomes["prepared"] += 1
            shutil.rmtree(config.data.prepared)
        assert not (place / "out").exists() or not list((place / "out").iterdir()), "a part of a folder is left"

    check()
    assert all(outcomes.values()), f"{name}: {outcomes} tells little"
    return outcomes["refused"]


# no host has it, so workers that start can't form a process group, and say so in a ClusterError
NO_INTERFACE = {"launch": {"launcher": "local", "num_workers": 2, "interface": "none0", "timeout_s": 20}}


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def twins(folder: Path) -> tuple[Path, Path]:
    """Two files of the same name and size, of two parts, that differ."""
    for one in sorted(folder.glob("parts/0000/*.npy")):
        other = folder / "parts" / "0001" / one.name
        if one.stat().st_size == other.stat().st_size and one.read_bytes() != other.read_bytes():
            return one, other
    raise AssertionError("no twins")


def lead_out(path: Path) -> None:
    outside = path.parents[3] / "outside.npy"
    path.rename(outside)
    path.symlink_to(outside)


def add_name(folder: Path, name: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"]["ids/user.parquet"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


INDICES = Path("parts", "0001", "indices.npy")
# what is done to a prepared folder (beside another one, of the same shape), and a text of the error
DAMAGES: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "a byte less": (lambda p, o: (p / INDICES).write_bytes((p / INDICES).read_bytes()[:-1]), "bytes, found"),
    "a byte more": (lambda p, o: (p / INDICES).write_bytes((p / INDICES).read_bytes() + b"x"), "bytes, found"),
    "emptied": (lambda p, o: (p / INDICES).write_bytes(b""), "found 0 bytes"),
    "a byte flipped": (lambda p, o: (p / INDICES).write_bytes((p / INDICES).read_bytes()[:-1] + b"x"), "same size"),
    "missing": (lambda p, o: (p / INDICES).unlink(), "found no file"),
    "a folder in its place": (lambda p, o: (p / INDICES).unlink() or (p / INDICES).mkdir(), "found no file"),
    "a part missing": (lambda p, o: shutil.rmtree(p / "parts" / "0000"), "found no file"),
    "files of one size swapped between parts": (lambda p, o: swap(*twins(p)), "another file of the same size"),
    "parts swapped": (lambda p, o: [(p / "parts" / a).rename(p / "parts" / b) for a, b in
                                    (("0000", "x"), ("0001", "0000"), ("x", "0001"))], "parts/0000"),
    "a part of another data set": (lambda p, o: shutil.copytree(o / "parts/0001", p / "parts/0001", dirs_exist_ok=True),
                                   "another file of the same size"),
    "IDs of another data set": (lambda p, o: shutil.copy(o / "ids/user.parquet", p / "ids/user.parquet"),
                                "user.parquet"),
    "the manifest of another data set": (lambda p, o: shutil.copy(o / MANIFEST, p / MANIFEST), "expected"),
    "no manifest": (lambda p, o: (p / MANIFEST).unlink(), "manifest.json: not found"),
    "half a manifest": (lambda p, o: (p / MANIFEST).write_text((p / MANIFEST).read_text()[:200]), "not valid JSON"),
    "a link out of the folder": (lambda p, o: lead_out(p / INDICES), "inside the folder"),
    "a name out of the folder": (lambda p, o: add_name(p, "../in/t.csv"), "inside the folder"),
    "an absolute name": (lambda p, o: add_name(p, str(o / "ids/user.parquet")), "inside the folder"),
}  # fmt: skip


@row(
    12,
    f"truncated, swapped and foreign part files: {len(DAMAGES)} kinds of damage",
    "refused before any process group starts",
    is_quick=True,
)
def damaged_parts(folder: Path) -> str:
    config = prepare_tiny(folder / "one", held_out=0, **NO_INTERFACE)
    # the same pairs with the users in another order: files of the same sizes
    other = prepare_tiny(folder / "other", GOOD.replace("u0", "ux"), held_out=0)
    whole = folder / "whole"
    shutil.copytree(config.data.prepared, whole)
    for name, (damage, expected) in DAMAGES.items():
        shutil.rmtree(config.data.prepared)
        shutil.copytree(whole, config.data.prepared)
        damage(Path(config.data.prepared), Path(other.data.prepared))
        check_unstarted(config, name, expected)

    shutil.rmtree(config.data.prepared)
    large = whole / INDICES.with_name("edge_weight.npy")
    large.write_bytes(large.read_bytes() + bytes(4 * END_BYTES))
    rewrite_manifest(whole)
    shutil.copytree(whole, config.data.prepared)
    content = bytearray(large.read_bytes())
    content[2 * END_BYTES] ^= 1
    (Path(config.data.prepared) / large.relative_to(whole)).write_bytes(content)
    check_unstarted(config, "a byte flipped inside a large file, with --verify", "expected SHA-256", verify=True)

    shutil.rmtree(config.data.prepared)
    shutil.copytree(whole, config.data.prepared)
    message = refused(lambda: api.train(config), ClusterError)
    assert "rank" in message, f"undamaged, the workers start and fail: {message}"
    return f"{len(DAMAGES) + 1} kinds refused by the driver; the same call with whole files started the workers"


def check_unstarted(config: Config, name: str, expected: str, verify: bool = False) -> None:
    """`train` refuses, in this process: an error of a worker would be a `ClusterError`, and leave a run folder."""
    before = set(multiprocessing.active_children())
    message = refused(lambda: api.train(config, verify=verify), StorageError)
    assert expected in message, f"{name}: {message}"
    assert "dist-gat prepare" in message, f"{name}: {message}"
    assert not config.run_folder.exists(), f"{name}: the launcher was called"
    assert set(multiprocessing.active_children()) <= before, f"{name}: a process was started"
