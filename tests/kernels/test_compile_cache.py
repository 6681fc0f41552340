"""The suite's compiled kernels: found again by the content of their sources alone, and never mixed up."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import Ranks
from numba.core.caching import IndexDataCacheFile

from dist_gat.kernels import attend_numba, compile_cache
from dist_gat.kernels.compile_cache import ROOT, cache_root, digest_of, folder_of, sources_of

SOURCES = {
    "kernels/top.py": "from dist_gat.kernels.step import step\n",
    "kernels/step.py": "def f():\n    from dist_gat.kernels import lanes as L, other\n",
    "kernels/lanes.py": "import dist_gat.base.number\n",
    "kernels/other.py": "from dist_gat.base import (\n    number,\n    one,\n)\n",
    "base/number.py": "from dist_gat.kernels.top import a_circle\nLINES = 64\n",
    "base/one.py": "",
    "base/__init__.py": "",
    "data/table.py": "from dist_gat.kernels.top import f\n",
}


def write_sources(root: Path, **changed: str) -> Path:
    """A package like ours; names of `changed` have two underscores for the slash."""
    for name, text in (SOURCES | {f"{k.replace('__', '/')}.py": v for k, v in changed.items()}).items():
        path = root / "dist_gat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "dist_gat" / "kernels" / "top.py"


def digest(root: Path, **changed: str) -> str:
    return digest_of(write_sources(root, **changed), root)


def test_a_kernel_is_known_by_all_that_it_imports_and_by_nothing_else(tmp_path: Path) -> None:
    first = digest(tmp_path / "a")
    assert digest(tmp_path / "elsewhere" / "b") == first
    assert digest(tmp_path / "c", data__table="other = 1\n") == first
    for number, name in enumerate(("kernels__step", "kernels__lanes", "kernels__other", "base__number", "base__one")):
        old = SOURCES[f"{name.replace('__', '/')}.py"]
        assert digest(tmp_path / f"d{number}", **{name: f"{old}LINES = 128\n"}) != first, name


def test_what_the_attention_kernels_inline_is_among_their_sources() -> None:
    names = {path.stem for path in sources_of(ROOT / "dist_gat" / "kernels" / "attend_numba.py")}
    assert names == {"atomics", "attend_numba", "lanes", "prefetch", "row_steps", "weighting"}


def test_all_imports_are_absolute() -> None:
    """Others would not be seen."""
    files = [path for path in (ROOT / "dist_gat").rglob("*.py") if "njit" in path.read_text()]
    assert len(files) > 10
    for file in files:
        for path in sources_of(file):
            assert not re.search(r"(?m)^\s*from\s+\.", path.read_text()), path


def place_of_kernels() -> str:
    return attend_numba.forward._cache.cache_path


def test_tests_and_the_processes_that_they_start_use_it(ranks: Ranks) -> None:
    place = place_of_kernels()
    assert place == str(folder_of(Path(attend_numba.__file__).resolve()))
    assert place.startswith(str(cache_root()))
    assert ranks.run(1, place_of_kernels) == [place]


def test_kernels_that_are_saved_at_once_are_all_there(tmp_path: Path) -> None:
    def save(number: int) -> None:
        IndexDataCacheFile(str(tmp_path), "kernel", "stamp").save(f"signature {number}", f"code {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(64)))
    found = IndexDataCacheFile(str(tmp_path), "kernel", "stamp")
    assert [found.load(f"signature {number}") for number in range(64)] == [f"code {number}" for number in range(64)]


def test_what_nobody_used_for_long_goes_when_something_new_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_cache, "cache_root", lambda: tmp_path)
    old, new, of_others = (tmp_path / name for name in (f"top-{'0' * 24}", f"top-{'1' * 24}", "thesis"))
    for folder in (old, new, of_others):
        folder.mkdir()
    for folder in (old, of_others):
        os.utime(folder, (0, 0))
    top = write_sources(tmp_path)
    assert folder_of(top).is_dir()
    assert (old.exists(), new.exists(), of_others.exists()) == (False, True, True)
    os.utime(folder_of(top), (0, 0))
    folder_of.cache_clear()
    assert folder_of(top).stat().st_mtime > 0
