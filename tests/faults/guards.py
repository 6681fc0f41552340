"""What each row of the scoreboard guards, taken out: in a copy of the source the row must fall short.

A guard is named by the text that makes it. Where that text is there no more, or the row passes without it, the
guard counts as not shown, so a row that can't fail is found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.board import NotExercised  # noqa: E402

SOURCE = Path(__file__).parents[2]
COPIED = ("dist_gat", "tests", "launch")
# a row without its guard may wait for what does not come
PATIENCE_S = 400


@dataclass(frozen=True)
class Guard:
    """row: of the scoreboard. what: the guard in words. edits: (file below the source, its text, what stands instead).

    told: what the row says without it, so that it fails for this reason and not for another.
    """

    row: int
    what: str
    edits: tuple[tuple[str, str, str], ...]
    told: str


GUARDS = (
    Guard(
        1,
        "draws are a function of the seed, the step and the node alone",
        (("dist_gat/sampling/sampler.py", "make_key(self.seed, Purpose.NEIGHBORS, epoch, step)",
          "make_key(self.seed, Purpose.NEIGHBORS, epoch, step, time.time_ns())"),),
        "not the bits of the undisturbed run",
    ),
    Guard(
        2,
        "a checkpoint's optimiser rows are loaded",
        (("dist_gat/checkpoints/snapshot.py",
          "load_rows(part_file(folder, part), part_rows(model, store, part, moments))",
          "load_rows(part_file(folder, part), part_rows(model, store, part))"),),
        "not the bits of the undisturbed run",
    ),
    Guard(
        2,
        "a rank that died is named before those that missed it",
        (("dist_gat/launcher/lost_workers.py", "if died and not own:", "if False:"),),
        "ValueError",
    ),
    Guard(
        2,
        "the launcher ends the workers of a run that failed",
        (("dist_gat/launcher/lost_workers.py",
          "            worker.kill()\n            worker.join()", "            pass"),),
        "left behind",
    ),
    Guard(
        3,
        "a checkpoint gets its name in one rename",
        (("dist_gat/exchange/shared_folder.py", "replace_folder(temporary, target)",
          "target.mkdir(exist_ok=True); [p.replace(target / p.name) for p in sorted(temporary.iterdir())]"),),
        "expected",
    ),
    Guard(
        4,
        "a request to stop saves a checkpoint",
        (("dist_gat/train/trainer.py", "elif request or self", "elif request and not stopped or self"),),
        "list index out of range",
    ),
    Guard(
        4,
        "workers listen to SIGTERM",
        (("dist_gat/launcher/stop_signals.py", "with on_stop_signals(self._stop):", "with on_stop_signals(dict):"),),
        "AssertionError",
    ),
    Guard(
        5,
        "the dense optimiser's state is loaded",
        (("dist_gat/checkpoints/snapshot.py", "load_dense_state(folder / DENSE_OPTIMIZER, optimizers.dense)", "pass"),),
        "not the bits of the undisturbed run",
    ),
    Guard(
        6,
        "the loss is divided by the seeds of all ranks",
        (("dist_gat/tasks/ranking.py", "{loss.kind: loss_B.sum() / batch.num_global_seeds}",
          "{loss.kind: loss_B.mean() / channel.world_size}"),),
        "AssertionError",
    ),
    Guard(
        6,
        "a rank trains on the seeds that it owns, and on no others",
        (("dist_gat/tasks/ranking_seeds.py", "np.flatnonzero(rank_of_pair == rank)",
          "np.flatnonzero((rank_of_pair == rank) & (rank < 3))"),),
        "seeds",
    ),
    Guard(
        7,
        "what is read of a checkpoint has the SHA-256 of its manifest",
        (("dist_gat/checkpoints/snapshot.py", 'verify_files(folder, {"files": wanted}, REMEDY)', "wanted"),),
        "DID NOT RAISE",
    ),
    Guard(
        8,
        "a checkpoint that can't be written leaves no temporary folder",
        (("dist_gat/exchange/shared_folder.py",
          "    finally:\n        if channel.rank == 0:\n            shutil.rmtree(temporary, ignore_errors=True)",
          "    finally:\n        pass"),),
        "tmp/.rank-",
    ),
    Guard(
        9,
        "what fails on one rank fails on all",
        (("dist_gat/exchange/fail_together.py", "errors = share_text(_told(failure), channel)",
          'errors = [""] * channel.rank + [_told(failure)]'),),
        "told-0.json",
    ),
    Guard(
        10,
        "a step whose loss or gradient is not finite is not applied",
        (("dist_gat/train/trainer.py", "if decision.not_finite:", "if False:"),),
        "representations have NaN",
    ),
    Guard(
        10,
        "ranks hear of what another rank found",
        (("dist_gat/train/step_vote.py", "votes_WK = channel.sum(votes_WK)", "channel.sum(votes_WK)"),),
        "AssertionError",
    ),
    Guard(
        11,
        "rows that can't be used are refused",
        (("dist_gat/data/bad_rows.py", "bad = [fault for fault in bad if fault.count]", "bad = []"),),
        "AssertionError",
    ),
    Guard(
        12,
        "files are checked against the manifest when a folder is opened",
        (("dist_gat/base/storage.py", "_check_file(folder, name, entry, remedy)\n    return", "pass\n    return"),),
        "ClusterError",
    ),
    Guard(
        13,
        "a checkpoint of other settings is refused",
        (("dist_gat/checkpoints/resume.py", "        if changed:\n", "        if False:\n"),),
        "ClusterError",
    ),
    Guard(
        13,
        "a checkpoint of another data set is refused",
        (("dist_gat/checkpoints/resume.py", 'if manifest["data_fingerprint"] != prepared.fingerprint:', "if False:"),),
        "DID NOT RAISE",
    ),
    Guard(
        14,
        "after a collective has failed, the ranks look for each other",
        (("dist_gat/exchange/channel.py", "    if store is None:\n", "    if store is not None:\n"),),
        "Regex pattern did not match",
    ),
    Guard(
        15,
        "Ray starts the workers anew",
        (("dist_gat/launcher/ray.py", "max_failures=launch.max_failures", "max_failures=0"),),
        "AssertionError",
    ),
    Guard(
        16,
        "workers that start anew go on from the newest checkpoint",
        (("dist_gat/checkpoints/resume.py", "    for step in steps:\n", "    for step in ():\n"),),
        "0 < starts[1]",
    ),
    Guard(
        17,
        "arrays of Python objects are not read",
        (("dist_gat/base/storage.py", 'mmap_mode="r", allow_pickle=False', "allow_pickle=True"),),
        "the pickle was executed",
    ),
    Guard(
        17,
        "recipes have no tags, and the YAML loader is the safe one",
        (("dist_gat/config/plain_yaml.py",
          "class _PlainLoader(yaml.SafeLoader):", "class _PlainLoader(yaml.UnsafeLoader):"),
         ("dist_gat/config/plain_yaml.py", 'if event.tag not in (None, "!"):', "if False:")),
        "the pickle was executed",
    ),
    Guard(
        18,
        "the workers meet at a store that listens on one address",
        (("dist_gat/launcher/ray.py", "listener.detach() if listener else None",
          "listener.close() if listener else None"),),
        "ray: listens on",
    ),
    Guard(
        18,
        "the cluster asks for a token, as launch/*.yaml have it",
        (("tests/ray_head.py", '"RAY_AUTH_MODE": "token"', '"RAY_AUTH_MODE": "disabled"'),),
        "AssertionError",
    ),
    Guard(
        19,
        "a run holds its folder",
        (("dist_gat/base/run_folder.py", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),),
        "TimeoutExpired",
    ),
    Guard(
        20,
        "what an attempt logged behind the checkpoint is taken back",
        (("dist_gat/train/run_log.py", "purge_step=step + 1", "purge_step=None"),),
        "TensorBoard has the steps",
    ),
    Guard(
        21,
        "old checkpoints are deleted",
        (("dist_gat/checkpoints/checkpoint_store.py", "for step in self.steps()[keep:]:", "for step in ():"),),
        "AssertionError",
    ),
    Guard(
        21,
        "nothing of a step is kept",
        (("dist_gat/train/trainer.py", "        self.window.add(batch, terms)\n",
          "        self.window.add(batch, terms)\n        self.__dict__.setdefault('kept', []).append(batch)\n"),),
        "MiB by step",
    ),
    Guard(
        22,
        "a pre-emption notice asks for a checkpoint",
        (("dist_gat/launcher/stop_signals.py", "return Request.PREEMPT\n", "return Request.NOTHING\n"),),
        "started at",
    ),
    Guard(
        22,
        "a pre-emption notice is heeded once",
        (("dist_gat/launcher/stop_signals.py", "self.has_saved or request == Request.PREEMPT", "self.has_saved"),),
        "started at",
    ),
    Guard(
        23,
        "draws along a further edge type are a function of its number and of the node alone",
        (("dist_gat/sampling/hop_plan.py", "make_key(int(key), Purpose.NEIGHBORS, number)",
          "make_key(int(key), Purpose.NEIGHBORS, __import__('time').time_ns())"),),
        "not the bits of the undisturbed run",
    ),
    Guard(
        24,
        "they don't depend on how many nodes are asked for at once",
        (("dist_gat/sampling/hop_plan.py", "make_key(int(key), Purpose.NEIGHBORS, number)",
          "make_key(int(key), Purpose.NEIGHBORS, number + len(nodes))"),),
        "losses differ",
    ),
)  # fmt: skip


def take_out(guard: Guard) -> dict[str, str]:
    """The files that the guard is in, without it. Raises `AssertionError` where its text is not there, once."""
    files: dict[str, str] = {}
    for name, text, instead in guard.edits:
        content = files.get(name) or (SOURCE / name).read_text(encoding="utf-8")
        assert content.count(text) == 1, f"{name}: {content.count(text)} times there: {text}"
        files[name] = content.replace(text, instead)
    return files


def run_without(guard: Guard) -> str:
    """Run the row on a copy without its guard; returns its last words. Raises `AssertionError` where it passes."""
    with tempfile.TemporaryDirectory(prefix="dist-gat-guard-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        for name in COPIED:
            # with the compiled kernels
            shutil.copytree(SOURCE / name, folder / name)
        for name, content in take_out(guard).items():
            (folder / name).write_text(content, encoding="utf-8")
        # the folder that is worked in comes first among those that are imported from, in workers too
        command = [sys.executable, "-m", "tests.faults", str(guard.row)]
        environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "1000"}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
            try:
                code = process.wait(PATIENCE_S)
            finally:
                end_family(process)
        output = (folder / "log").read_text(encoding="utf-8", errors="replace")
    happened = output.rpartition("  fail (")[2].partition("\nfaults")[0].strip()
    if "  not exercised (" in output:
        raise NotExercised(output.rpartition("  not exercised (")[2].partition("\nfaults")[0])
    assert code == 1, f"row {guard.row} passed: {output[-2000:]}"
    assert guard.told in happened, f"row {guard.row} failed for another reason: {happened[:2000]}"
    return happened


def end_family(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started and left; workers have groups of their own."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def main(wanted: list[int]) -> int:
    """Take out the guards of all rows, or of those named; prints what each row said."""
    console = Console()
    table = Table(title="rows without their guards", title_justify="left", show_lines=True)
    for column in ("row", "taken out", "shown", "the row said", "s"):
        table.add_column(column)
    num_missed = 0
    for guard in (guard for guard in GUARDS if guard.row in wanted or not wanted):
        started = time.perf_counter()
        try:
            shown, said = "[green]falls short[/]", run_without(guard)
        except NotExercised as err:
            shown, said = "[yellow]not exercised[/]", str(err)
        except (AssertionError, subprocess.TimeoutExpired) as err:
            shown, said = "[red]not shown[/]", str(err)
            num_missed += 1
        seconds = f"{time.perf_counter() - started:.0f}"
        console.print(f"row {guard.row} without: {guard.what}: {shown} ({seconds} s)", highlight=False)
        table.add_row(str(guard.row), guard.what, shown, escape(said[:300]), seconds)
    console.print(table)
    return int(num_missed > 0)


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
