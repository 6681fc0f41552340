"""`dist-gat doctor`: small checks of this host, each of which says what it found and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dist_gat.base.errors import first_line
from dist_gat.base.quiet import silent
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.exchange.worker import Worker
from dist_gat.launcher.host import cores, worker_environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "dist-gat"
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """What a check found. `advice` is empty where there is nothing to do."""

    name: str
    status: Literal["ok", "warn", "bad"]
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A named check. `advice` is for the case that it fails with an exception."""

    name: str
    run: Callable[[], Iterator[Finding]]
    advice: str


def examine(checks: Sequence[Check] | None = None) -> list[Finding]:
    """Run all checks, quietly; an exception in one becomes a bad finding, and the others go on."""
    findings: list[Finding] = []
    for check in CHECKS if checks is None else checks:
        try:
            with silent():
                findings.extend(check.run())
        except Exception as err:
            findings.append(Finding(check.name, "bad", f"{type(err).__name__}: {first_line(err)}", check.advice))
    return findings


def check_python() -> Iterator[Finding]:
    wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    yield in_range("python", platform.python_version(), wanted, f"use Python {wanted}")


def check_packages() -> Iterator[Finding]:
    """The packages that the installed dist-gat asks for, with the versions that it asks for."""
    for wanted in requirements():
        advice = f"pip install '{wanted}'"
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(wanted.name, "bad", f"not installed; expected {wanted.specifier}", advice)
        else:
            yield in_range(wanted.name, version, str(wanted.specifier), advice)


def requirements() -> list[Requirement]:
    """Of the installed dist-gat, those that hold for this Python, without extras."""
    from packaging.requirements import Requirement

    lines = map(Requirement, importlib.metadata.requires(PACKAGE) or [])
    return [line for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]


def in_range(name: str, version: str, wanted: str, advice: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding(name, "ok", version)
    return Finding(name, "bad", f"{version}; expected {wanted}", advice)


def check_cores() -> Iterator[Finding]:
    usable, present = cores(), os.cpu_count() or 1
    found = f"{usable} of {present}, {os.getloadavg()[0]:.1f} busy"
    advice = f"Ray workers share them; {usable} workers at most, or set launch.num_workers=1" if usable < 2 else ""
    yield Finding("cores", "warn" if advice else "ok", found, advice)


def check_memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    advice = (
        "two workers and Ray want some 4 GiB; use launch.launcher=local or a larger host" if total < 4 * GIB else ""
    )
    yield Finding("memory", "warn" if advice else "ok", f"{total / GIB:.1f} GiB", advice)


def check_temp_folder() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free in {folder}"
    # Ray refuses to store objects on a disk that is 95 % full
    tight = usage.free < 2 * GIB or usage.free < 0.05 * usage.total
    yield Finding("temp folder", "warn" if tight else "ok", found, "free some space, or set TMPDIR" if tight else "")


def check_shared_memory() -> Iterator[Finding]:
    folder = Path("/dev/shm")
    if not folder.exists():
        yield Finding("shared memory", "ok", "no /dev/shm on this system")
        return
    total = shutil.disk_usage(folder).total
    advice = "Ray falls back to slow files; in a container start it with --shm-size=2g" if total < GIB else ""
    yield Finding("shared memory", "warn" if advice else "ok", f"{total / GIB:.1f} GiB in {folder}", advice)


def check_file_descriptors() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # some 200 in a worker, some 1,000 in Ray's own processes, and Ray lifts the soft limit to the hard one
    advice = "Ray runs out of them with many workers: ulimit -n 65536" if hard < 4096 else ""
    yield Finding("file descriptors", "warn" if advice else "ok", f"{soft:,} soft, {hard:,} hard", advice)


def check_threads() -> Iterator[Finding]:
    import torch

    # the launcher sets the numbers of threads itself, but these bind or cap every worker alike
    throttles = [
        name
        for name in ("OMP_THREAD_LIMIT", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
        if name in os.environ
    ]
    numbers = {
        name: os.environ[name]
        for name in worker_environment(LaunchConfig())
        if name.endswith("_NUM_THREADS") and name in os.environ
    }
    found = ", ".join(
        [f"torch uses {torch.get_num_threads()} of {cores()} cores", *[f"{n}={v}" for n, v in numbers.items()]]
    )
    if throttles:
        found += "".join(f", {name}={os.environ[name]}" for name in throttles)
        yield Finding("threads", "warn", found, f"workers may end up on the same cores: unset {' '.join(throttles)}")
    elif torch.get_num_threads() < cores():
        yield Finding("threads", "warn", found, "commands that start no workers are throttled: unset OMP_NUM_THREADS")
    else:
        yield Finding("threads", "ok", found)


def check_gpus() -> Iterator[Finding]:
    import torch
    import torch.distributed as dist

    if not torch.cuda.is_available():
        yield Finding("gpus", "ok", f"none that torch {torch.__version__} can use")
        return
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    torch.ones(1, device="cuda").sum().item()
    yield Finding("gpus", "ok", f"{len(names)}: {', '.join(sorted(set(names)))}")
    if dist.is_nccl_available():
        yield Finding("nccl", "ok", ".".join(str(number) for number in torch.cuda.nccl.version()))
    else:
        yield Finding(
            "nccl", "bad", "torch was built without it", "install a CUDA build of torch, or launch.use_gpu=false"
        )


def check_numba() -> Iterator[Finding]:
    """Sample two rows with our own kernel, and look where numba keeps the compiled code."""
    import numpy as np

    from dist_gat.base.random import fold
    from dist_gat.sampling.draws import hide_pairs, sample_rows

    indptr, indices = np.array([0, 2, 4]), np.array([1, 2, 0, 2])
    nothing_hidden = hide_pairs(np.empty((0, 2), dtype=np.int64))
    sampled = sample_rows(indptr, indices, 0, np.array([0, 1]), 2, np.uint64(1), nothing_hidden)
    expect(sampled.tolist(), [[1, 2], [0, 2]])
    cache = Path(fold.stats.cache_path)
    if os.access(cache, os.W_OK):
        yield Finding("numba kernels", "ok", f"compiled; cache in {cache}")
    else:
        yield Finding("numba kernels", "warn", f"compiled, but {cache} is not writable", NUMBA_ADVICE)


def check_dgl() -> Iterator[Finding]:
    """Draw the nodes of a ring through DGL's loader, or through ours where DGL can't be loaded."""
    import torch

    from dist_gat.sampling.dgl import WHY_NOT_DGL, BlockSampler, DataLoader, dgl

    nodes = torch.arange(8)
    dst, src = torch.cat([nodes, (nodes + 1) % 8]), torch.cat([(nodes + 1) % 8, nodes])
    ring = (dst, src) if dgl is None else dgl.graph((src, dst))

    class Echo(BlockSampler):
        def sample(self, graph: Any, seeds: Any, exclude_eids: Any = None) -> Any:
            return seeds

    loader = DataLoader(ring, nodes, Echo(), device="cpu", batch_size=4)
    loader.cpu_affinity_enabled = True
    expect([batch.tolist() for batch in loader], [[0, 1, 2, 3], [4, 5, 6, 7]])
    name = "dgl health"
    if dgl is not None:
        yield Finding(name, "ok", f"the DataLoader of DGL {dgl.__version__} works")
        return
    for wanted in requirements():
        if wanted.name == "dgl":
            found = f"our own DataLoader works, with the same batches; DGL can't be loaded: {WHY_NOT_DGL}"
            yield Finding(
                name, "warn", found, f"pip install --force-reinstall --no-deps '{wanted.name}{wanted.specifier}'"
            )
            return
    yield Finding(name, "ok", "our own DataLoader works; DGL has no wheels for this Python")


def check_metis() -> Iterator[Finding]:
    """Two users with an item each, in two parts."""
    import numpy as np

    from dist_gat.graph.assign import metis

    user, other, item, others = metis(np.arange(2), np.arange(2, 4), num_nodes=4, num_parts=2, seed=0).tolist()
    expect([user == item, other == others, user == other], [True, True, False])
    yield Finding("metis health", "ok", "cuts a graph where it has no edges")


def check_torch_distributed() -> Iterator[Finding]:
    """Two local workers ask each other for rows, over gloo on loopback."""
    from dist_gat.launcher.local import run_local

    launch = {"launcher": "local", "num_workers": 2, "threads_per_worker": 1, "timeout_s": 15}
    config = parse_config({"name": "doctor", "data": {"interactions": "none"}, "launch": launch})
    expect(run_local(exchange_rows, config), {"answers": [0, 11, 20, 31]})
    yield Finding(
        "torch.distributed health", "ok", f"two workers exchanged rows on interface {config.launch.interface}"
    )


def exchange_rows(config: Config, worker: Worker) -> dict[str, Any]:
    """The job of `check_torch_distributed`: the owner of a request adds its rank to ten times the request."""
    import torch

    from dist_gat.exchange.route import ask_owners

    requests = torch.arange(4)
    answers = ask_owners(requests, requests % worker.world_size, lambda rows: 10 * rows + worker.rank, worker.control)
    return {"answers": answers.tolist()}


def check_ray_token() -> Iterator[Finding]:
    """Ray takes its token from the first of these places. Without a token, whoever reaches Ray can run code."""
    mode, path = os.environ.get("RAY_AUTH_MODE"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(path) if path else Path.home() / ".ray" / "auth_token"
    name = "ray token"
    make_token = "ray get-auth-token --generate; export RAY_AUTH_MODE=token"
    if mode is not None and mode.lower() != "token":
        advice = f"whoever reaches a cluster started so runs code on it: {make_token}"
        yield Finding(name, "warn", f"authentication is off, RAY_AUTH_MODE={mode}", advice)
    elif os.environ.get("RAY_AUTH_TOKEN"):
        yield Finding(name, "ok", "from RAY_AUTH_TOKEN")
    elif not file.exists():
        found = "no token yet; Ray makes one for local runs, but `ray start` goes without"
        yield Finding(name, "warn", found, f"before `ray start`: {make_token}")
    elif file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(name, "warn", f"other users may read {file}", f"chmod 600 {file}")
    else:
        yield Finding(name, "ok", f"from {file}")


def check_ray() -> Iterator[Finding]:
    from dist_gat.launcher.ray import ray_health

    yield Finding("ray health", "ok", f"a task ran on a local cluster that listens on {ray_health()}")


def expect(found: object, expected: object) -> None:
    if found != expected:
        raise RuntimeError(f"expected {expected}, got {found}")


INSTALL_ADVICE = "install dist-gat with pip, from its folder: pip install ."
HOST_ADVICE = "this system does not tell; dist-gat is made for Linux"
NUMBA_ADVICE = "set NUMBA_CACHE_DIR to a folder that you may write, or every process compiles anew"

# The token is checked before Ray is started, because Ray makes a token where there is none.
CHECKS = (
    Check("python", check_python, INSTALL_ADVICE),
    Check("packages", check_packages, INSTALL_ADVICE),
    Check("cores", check_cores, HOST_ADVICE),
    Check("memory", check_memory, HOST_ADVICE),
    Check("temp folder", check_temp_folder, "set TMPDIR to a folder that you may write"),
    Check("shared memory", check_shared_memory, HOST_ADVICE),
    Check("file descriptors", check_file_descriptors, HOST_ADVICE),
    Check("threads", check_threads, "install torch anew"),
    Check("gpus", check_gpus, "install a torch that fits the driver which nvidia-smi shows, or launch.use_gpu=false"),
    Check("numba kernels", check_numba, NUMBA_ADVICE),
    Check("metis health", check_metis, "install pymetis from PyPI, or parts.method=range"),
    Check("dgl health", check_dgl, "install dgl from PyPI, in the version above; other builds want one exact torch"),
    Check(
        "torch.distributed health",
        check_torch_distributed,
        "set launch.interface to a network interface that `ip link` lists; behind a firewall, let loopback through",
    ),
    Check("ray token", check_ray_token, "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with a token"),
    Check("ray health", check_ray, "look into session_latest/logs below Ray's temp folder, or launch.launcher=local"),
)
