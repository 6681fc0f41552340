"""Hosts on one machine: network namespaces with a switch between them, a Ray node in each, one file system.

For root alone, with `ip` and `tc` of iproute2. Names are those of this process, so that test runs don't meet.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ray_head import BIN

PORT = 6379


def can_make_hosts() -> bool:
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ip", "tc"))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Host:
    """name: of its namespace. address: on the switch. link: of the switch to it, in the root namespace."""

    name: str
    address: str
    link: str
    node: subprocess.Popen[bytes] | None = None

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


@dataclass
class Hosts:
    """A cluster of some hosts; the first one is its head. folder: for what all see."""

    bridge: str
    environment: dict[str, str]
    folder: Path
    hosts: list[Host] = field(default_factory=list)

    @property
    def head(self) -> Host:
        return self.hosts[0]

    @property
    def disk(self) -> Path:
        """For the temporary files of each host."""
        return self.folder / "ray"

    def add(self, cpus: int = 1, start: bool = True, within: Sequence[str] = ()) -> Host:
        """A host more, which joins the cluster. within: see `start`."""
        number = len(self.hosts) + 1
        tag = self.bridge.removeprefix("b")
        host = Host(f"dg{tag}-{number}", f"10.213.{int(tag, 16) % 250}.{number}", f"v{tag}-{number}")
        ip("netns", "add", host.name)
        self.hosts.append(host)
        ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        ip("link", "set", host.link, "master", self.bridge, "up")
        for command in (
            ["addr", "add", f"{host.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", host.name, *command)
        if start:
            self.start(host, cpus, within)
        return host

    def start(self, host: Host, cpus: int = 1, within: Sequence[str] = ()) -> None:
        """A Ray node on a host, and wait until the head knows it. within: the command that runs the node's, such as
        one that gives it another clock or another disk."""
        command = [
            *within,
            str(BIN / "ray"),
            "start",
            "--block",
            f"--node-ip-address={host.address}",
            f"--num-cpus={cpus}",
        ]
        if host is self.head:
            command += ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self.disk}"]
        else:
            command += [f"--address={self.head.address}:{PORT}"]
        log = self.folder / f"{host.name}.log"
        with log.open("wb") as file:
            host.node = subprocess.Popen(
                host.command(*command), env=self.environment, stdout=file, stderr=file, start_new_session=True
            )  # fmt: skip
        for _ in range(360):
            told = log.read_text(errors="replace")
            if "Ray runtime started" in told:
                return
            assert host.node.poll() is None, f"{host.name} did not start: {told}"
            time.sleep(0.5)
        raise TimeoutError(f"{host.name} did not start: {told}")

    def cut(self, host: Host) -> None:
        """Nothing reaches the host any more, and it reaches nobody."""
        ip("link", "set", host.link, "down")

    def mend(self, host: Host) -> None:
        ip("link", "set", host.link, "up")

    def slow(self, host: Host, rate: str = "100mbit") -> None:
        """The switch sends to the host at this rate alone. For delays (netem) not every kernel is built."""
        command = [
            "tc",
            "qdisc",
            "add",
            "dev",
            host.link,
            "root",
            "tbf",
            "rate",
            rate,
            "burst",
            "64kb",
            "latency",
            "50ms",
        ]
        subprocess.run(command, check=True)

    def kill(self, host: Host) -> None:
        """Everything that runs on the host ends at once."""
        found = subprocess.run(["ip", "netns", "pids", host.name], capture_output=True, text=True, check=False)
        for pid in map(int, found.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, *arguments: str, clock: Sequence[str] = ()) -> subprocess.Popen[str]:
        """`dist-gat` with these arguments, on the head."""
        return subprocess.Popen(
            self.head.command(*clock, str(BIN / "dist-gat"), *arguments), env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def disk_of(self, host: Host) -> Path:
        """The folder for temporary files as the host sees it."""
        assert host.node is not None
        return Path(f"/proc/{host.node.pid}/root{self.disk}")

    def sent_bytes(self, host: Host) -> int:
        """By the host, since it is there."""
        return int(Path(f"/sys/class/net/{host.link}/statistics/rx_bytes").read_text())


def own_disk(folder: Path, size: str) -> list[str]:
    """What to run a command within, so that it has a folder on a disk of its own; each host has its own mounts."""
    return ["sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"', str(folder)]


def fill(folder: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


@contextmanager
def running_hosts(count: int) -> Iterator[Hosts]:
    """Hosts with one core each for workers, and a Ray cluster with a token over them."""
    tag = secrets.token_hex(3)
    # not tmp_path: Ray puts Unix sockets there, whose names have at most 107 characters
    with tempfile.TemporaryDirectory(prefix="hosts-", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        settings = {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | settings
        cluster = Hosts(f"b{tag}", environment, Path(folder))
        cluster.disk.mkdir()
        ip("link", "add", cluster.bridge, "type", "bridge")
        ip("link", "set", cluster.bridge, "up")
        try:
            for _ in range(count):
                cluster.add()
            yield cluster
        finally:
            for host in cluster.hosts:
                cluster.kill(host)
                if host.node is not None:
                    host.node.wait(timeout=30)
            for host in cluster.hosts:
                subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)
            subprocess.run(["ip", "link", "del", cluster.bridge], capture_output=True, check=False)
