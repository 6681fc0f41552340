"""`make bench`: every benchmark one after another, one table, one result file for this kind of host.

    python -m benchmarks [--data FOLDER] [--only NAME …]

FOLDER holds the LightGCN split of Gowalla; without it the lines that need it are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Line, print_table, save_lines

SUITE = (
    "attention",
    "relations",
    "step",
    "dist_dgl",
    "inference",
    "ranking",
    "partition",
    "assignment",
    "scaling",
    "cache",
    "columns",
    "text_encoding",
)
NEEDS_DATA = ("ranking",)
RESULTS = Path(__file__).parent / "results"


def host_kind() -> str:
    """Cores and processor, for the name of the result file."""
    names = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    words = (names[0] if names else platform.processor()).lower().split()[:3]
    return "-".join([f"cpu-{len(os.sched_getaffinity(0))}", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", choices=SUITE, default=SUITE)
    arguments = parser.parse_args()
    lines: list[Line] = []
    failed = []
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{host_kind()}.json"
    for name in arguments.only:
        if name in NEEDS_DATA and arguments.data is None:
            print(f"{name}: left out; it needs --data FOLDER")
            continue
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "lines.json"
            data = ["--data", str(arguments.data)] if name in NEEDS_DATA else []
            if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(file), *data]).returncode:
                failed.append(name)
                continue
            lines += [Line(**entry) for entry in json.loads(file.read_text())]
        # after each, so that what was measured stays when a later one fails
        save_lines(merged(path, lines), path)
    print_table(lines)
    print(f"written to {path}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; their lines in the file, if any, are those of an earlier run")


def merged(path: Path, lines: list[Line]) -> list[Line]:
    """The lines of an earlier run that this one did not measure anew, then those of this one."""
    earlier = [Line(**entry) for entry in json.loads(path.read_text())] if path.exists() else []
    new = {(line.line, line.peer) for line in lines}
    return [line for line in earlier if (line.line, line.peer) not in new] + lines


if __name__ == "__main__":
    main()
