"""Lists the compiled kernels that the suite keeps: `python tests/compiled_kernels.py [FUNCTION]`.

One line a function: the number of its signatures and the bytes of their machine code, most first. With the name of a
function, its signatures. In an empty folder, which NUMBA_CACHE_DIR may name, it is what one run of tests compiled.
"""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path

from dist_gat.kernels.compile_cache import cache_root


def signatures(index: Path) -> dict[str, int]:
    """Of numba's index file: argument types, and the size of their machine code."""
    with index.open("rb") as file:
        pickle.load(file)  # numba's version
        _, overloads = pickle.loads(file.read())
    return {
        shortened(str(key[0])): path.stat().st_size
        for key, name in overloads.items()
        if (path := index.with_name(name)).exists()
    }


def shortened(types: str) -> str:
    """float64[2] for a matrix, and the lengths of tuples: they stand for numbers."""
    types = re.sub(r"Array\((\w+), (\d), '(\w)', (\w+), aligned=True\)", r"\1[\2]", types)
    return re.sub(r"UniTuple\(int64, (\d+)\)", r"\1", types)


def main(wanted: str | None) -> None:
    found = {}
    for index in sorted(cache_root().glob("*/*.nbi")):
        name = re.sub(r"-\d+\.py\d+\w*$", "", index.stem)
        found.setdefault(name, {}).update(signatures(index))
    if wanted:
        for name, kept in found.items():
            if name.rpartition(".")[2] == wanted:
                print(*(f"{size:>9,}  {types}" for types, size in sorted(kept.items())), sep="\n")
        return
    for name, kept in sorted(found.items(), key=lambda entry: -sum(entry[1].values())):
        print(f"{len(kept):4}  {sum(kept.values()):>11,}  {name}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
