"""This version against an older one, line by line: `python -m benchmarks.versions COMMIT`.

Each side is a process of its own in a worktree of its own, on a standard graph that it has prepared itself, and runs
one step when it is asked: an `additive` layer forward and backward, 20 batches of the sampler, a whole training step,
each as in `benchmarks.attention` and `benchmarks.step`. The sides take turns, in another order every round.

A ratio is of the older version's seconds over ours, by the clock and of the process's own work: 0.95 is 5 % slower.
The working tree is measured as it stands; its uncommitted changes count.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import OURS, Line

BAR = 0.95
LINES = ("additive", "sampler", "training step")
CLOCKS = ("wall", "cpu")
HERE = Path(__file__).resolve()
# the older version's benchmarks know nothing of this file
CHILD = "import runpy, sys; runpy.run_path(sys.argv[1])['serve'](*sys.argv[2:])"


def serve(connection: str, nodes: str, interactions: str) -> None:
    """The child: for each name of a line that it receives, the seconds of one step by each clock."""
    import torch

    from benchmarks import attention, graph, step
    from dist_gat.launcher.host import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    channel = Connection(int(connection))
    with graph.prepared_graph(int(nodes), int(interactions)) as prepared:
        _, (block, *_) = next(step.our_batches(prepared))
        steps = {
            "additive": attention.layer_step(OURS, block, "additive", True),
            "sampler": step.our_sampling(prepared, 1),
            "training step": step.our_step(prepared),
        }
        channel.send(sorted(steps))
        while (line := channel.recv()) is not None:
            wall, cpu = time.perf_counter(), time.process_time()
            steps[line]()
            channel.send((time.perf_counter() - wall, time.process_time() - cpu))


@contextmanager
def version(tree: Path, *arguments: object) -> Iterator[Connection]:
    """The child of a version, ready; ended in the end. Raises `EOFError` where it could not start: it prints why."""
    ours, theirs = Pipe()
    with theirs:
        command = [sys.executable, "-c", CHILD, str(HERE), str(theirs.fileno()), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=tree, env=environment)
    try:
        ours.recv()
        yield ours
        ours.send(None)
    finally:
        ours.close()
        process.wait()


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit."""
    git = ["git", "-C", str(HERE.parent.parent), "worktree"]
    with tempfile.TemporaryDirectory(prefix="dist-gat-version-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def seconds_of(channel: Connection, line: str) -> tuple[float, float]:
    """By each of `CLOCKS`."""
    channel.send(line)
    return channel.recv()


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=15)
    parser.add_argument("commit", help="the older version")
    arguments = parser.parse_args()
    size = arguments.nodes, arguments.interactions
    results: list[Line] = []
    with ExitStack() as stack:
        # one after the other, so that neither prepares its graph while the other measures
        older = stack.enter_context(version(stack.enter_context(worktree(arguments.commit)), *size))
        sides = {OURS: stack.enter_context(version(HERE.parent.parent, *size)), arguments.commit: older}
        shuffle = random.Random(0).shuffle
        for line in LINES:
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for _ in range(arguments.repeats):
                order = list(sides.items())
                shuffle(order)
                for name, channel in order:
                    seconds_of(channel, line)  # finds its caches cold
                    seconds[name].append(seconds_of(channel, line))
            for at, clock in enumerate(CLOCKS):
                of_clock = {name: [one[at] for one in values] for name, values in seconds.items()}
                results += harness.compare(f"{line}, {clock}", of_clock, BAR, None)
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
