"""A trial as an ordinary run in a process of its own, watched through the events that it writes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dist_gat.base.errors import DistGatError
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.launcher.host import end_with_parent, worker_environment
from dist_gat.launcher.preload import start_nursery
from dist_gat.launcher.progress import EventTail
from dist_gat.train.event_log import PROGRESS_FILE

# A module-level function such as `dist_gat.api.train`, so that another process can import it
Run = Callable[[Config], dict[str, Any]]
POLL_S = 0.1
MAX_NOTE = 4000  # characters, which a pipe holds until they are read
SAVE_S = 60.0  # a trial that is asked to stop has so long to save


class TrialProcess:
    """Starts `run` on a configuration; the process ends with this one at the latest, and its workers with it."""

    def __init__(self, run: Run, tree: dict[str, Any], launch: LaunchConfig, stop_file: Path) -> None:
        """tree: of the configuration, which may be invalid. stop_file: the trial stops where this file appears."""
        self.stop_file, self.started = stop_file, time.monotonic()
        self.tail = EventTail(Path(tree["run"]) / PROGRESS_FILE)
        self.validations: deque[dict[str, Any]] = deque()
        self.progress: dict[str, Any] = {"epochs": 0}
        start_nursery(launch, run.__module__)
        context = multiprocessing.get_context("forkserver")
        self.answer, theirs = context.Pipe(duplex=False)
        # no daemon, because a daemon can't start workers
        self.process = context.Process(target=_run_trial, args=(run, tree, launch, theirs))
        self.process.start()
        theirs.close()

    def step(self) -> dict[str, Any]:
        """Wait for the next validation or for the end, and return what is known then.

        `epochs`, and once there was a validation the best `value` so far and its `epoch`; `seconds` since the start; at
        the end `status`, and a `note` where that is failed. A resumed run reports its earlier epochs again.
        """
        while True:
            has_ended = self.process.exitcode is not None
            self.validations += [event for event in self.tail.read() if event["event"] == "valid"]
            while self.validations:
                event = self.validations.popleft()
                # after a crash an epoch may be there twice
                if event["epoch"] > self.progress["epochs"]:
                    self.progress["epochs"] = event["epoch"]
                    if event["best"]:
                        self.progress |= {"value": event["value"], "epoch": event["epoch"]}
                    return self._result()
            if has_ended:
                return self._result(**self._outcome())
            if self.stop_file.exists():
                self.process.terminate()
                self.process.join(SAVE_S)
                self.kill()
                return self._result(status="unfinished")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End it at once. Its checkpoints stay."""
        self.process.kill()
        self.process.join()

    def _result(self, **end: Any) -> dict[str, Any]:
        return {**self.progress, "seconds": time.monotonic() - self.started, **end}

    def _outcome(self) -> dict[str, Any]:
        try:
            if self.answer.poll():
                return json.loads(self.answer.recv_bytes())
        except EOFError:
            pass
        code = self.process.exitcode
        note = f"its process ended without a word, exit code {code}; -9 often means that the host ran out of memory"
        return {"status": "failed", "note": note}


def _run_trial(run: Run, tree: dict[str, Any], launch: LaunchConfig, answer: Connection) -> None:
    os.environ.update(worker_environment(launch))
    # a terminal's Ctrl-C goes to the process group of the search, which decides what follows
    os.setpgrp()
    end_with_parent()
    try:
        stopped = run(parse_config(tree, where="these values"))["stopped"]
        outcome = {"status": "unfinished" if stopped else "finished"}
    except DistGatError as err:
        outcome = {"status": "failed", "note": str(err)[:MAX_NOTE]}
    except Exception:
        outcome = {"status": "failed", "note": traceback.format_exc()[-MAX_NOTE:]}
    answer.send_bytes(json.dumps(outcome).encode())
