"""`launch/submit.py` against a real head with token authentication, all of it on loopback."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from dist_gat.api import prepare
from dist_gat.config import load_config
from dist_gat.data.synthetic import write_synthetic

SUBMIT = Path(__file__).parent.parent.parent / "launch" / "submit.py"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    process: subprocess.Popen[bytes]
    address: str
    environment: dict[str, str]

    def submit(self, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(SUBMIT), "recipe.yaml", *arguments, "--address", self.address]
        env = self.environment | environment
        return subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )  # fmt: skip

    def listening_on(self) -> set[str]:
        """The addresses at which the head and all that it started listen now."""
        found = set()
        for process in [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]:
            try:
                found |= {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
            except psutil.NoSuchProcess:
                continue
        return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def head() -> Iterator[Head]:
    # not tmp_path: Ray puts Unix sockets there, whose names have at most 107 characters
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        settings = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | settings
        gcs, dashboard, client, agent = free_ports(4)
        command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
        command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        command += [f"--dashboard-agent-listen-port={agent}", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        log = (Path(folder) / "head.log").open("wb")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        address = f"http://127.0.0.1:{dashboard}"
        try:
            wait_for(f"{address}/api/version", process, token.read_text())
            yield Head(process, address, environment)
        finally:
            stop(process)


def wait_for(url: str, process: subprocess.Popen[bytes], token: str) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    for _ in range(200):
        assert process.poll() is None, "the head ended"
        try:
            with urllib.request.urlopen(request, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(url)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the head, and whatever it started that is still there."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    for child in alive:
        child.kill()


def write_recipe(folder: Path) -> None:
    write_synthetic(folder / "raw", 100, 60, 4, 8, 0.1, seed=5)
    recipe = {
        "name": "submitted",
        "data": {"path": "raw", "interactions": "interactions.csv"},
        "parts": {"num_parts": 2, "method": "hash"},
        "sampling": {"fanouts": [4]},
        "negatives": {"num_shared": 16},
        "model": {"embedding_size": 8},
        "train": {"num_epochs": 1, "batch_size": 128},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.ray
def test_a_job_trains_on_loopback_alone_and_needs_the_token(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare(load_config("recipe.yaml"))

    job = head.submit(tmp_path, "launch.timeout_s=60")
    failed = head.submit(tmp_path, "data.prepared=nowhere")
    strangers = [head.submit(tmp_path, RAY_AUTH_MODE="disabled"), head.submit(tmp_path, RAY_AUTH_TOKEN="wrong")]
    addresses = set()
    while job.poll() is None:
        addresses |= head.listening_on()
        time.sleep(0.5)

    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert "best epoch 1" in output
    assert (tmp_path / "runs" / "submitted" / "model").is_dir()
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}

    # a failure in the job is the exit code here, and its error stands in the log
    output, _ = failed.communicate(timeout=60)
    assert failed.returncode == 1
    assert "nowhere/manifest.json: not found" in output

    for stranger in strangers:
        output, _ = stranger.communicate(timeout=60)
        assert stranger.returncode == 1
        assert "does not let us in" in output
        assert "RAY_AUTH_TOKEN_PATH" in output
        assert "Traceback" not in output


def test_errors_before_submitting(tmp_path: Path) -> None:
    write_recipe(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, str(SUBMIT), "recipe.yaml", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return result.returncode, result.stderr

    (port,) = free_ports(1)
    code, error = run("--address", f"http://127.0.0.1:{port}")
    assert (code, "no Ray job server answers there" in error, "Traceback" in error) == (1, True, False)
    code, error = run("train.num_epoch=2")
    assert (code, "did you mean train.num_epochs?" in error) == (1, True)
    code, error = run("--address", "127.0.0.1:8265")
    assert (code, "expected a URL" in error) == (2, True)
    code, error = run("--folder", "relative")
    assert (code, "expected an absolute path" in error) == (2, True)
