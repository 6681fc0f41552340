"""A Ray head in a process of its own, with token authentication, all of it on loopback."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """address: of the dashboard, where jobs are submitted. cluster: where runs connect, their `launch.address`."""

    process: subprocess.Popen[bytes]
    address: str
    cluster: str
    environment: dict[str, str]

    def submit(self, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "dist_gat.cli.main",
            "submit",
            "recipe.yaml",
            *arguments,
            "--address",
            self.address,
        ]
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


@contextmanager
def running_head() -> Iterator[Head]:
    """A head with token authentication, on loopback."""
    # not tmp_path: Ray puts Unix sockets there, whose names have at most 107 characters
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        settings = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # a driver's first workers, which would start ahead; those of a training have an environment of their own
            "RAY_prestart_worker_first_driver": "0",
            "RAY_enable_worker_prestart": "0",
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
            yield Head(process, address, f"127.0.0.1:{gcs}", environment)
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
    """End the head and whatever it started, at once: asked to end, it takes ten seconds."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=5)
