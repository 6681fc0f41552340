"""`dist-gat doctor`: a check that fails becomes advice, and the output stays clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dist_gat.cli.main import app
from dist_gat.launcher import doctor
from dist_gat.launcher.doctor import Check, Finding, examine
from dist_gat.sampling import without_dgl


def noisy() -> Iterator[Finding]:
    print("noise")
    os.write(2, b"noise past Python\n")
    yield Finding("noisy", "ok", "fine")


def broken() -> Iterator[Finding]:
    yield Finding("half", "ok", "done before the error")
    raise OSError("the disk is gone\nand more")


CHECKS = (Check("broken", broken, "buy a disk"), Check("noisy", noisy, "be quiet"))


def test_a_broken_check_becomes_bad_with_its_advice_and_the_others_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert examine(CHECKS) == [
        Finding("half", "ok", "done before the error"),
        Finding("broken", "bad", "OSError: the disk is gone", "buy a disk"),
        Finding("noisy", "ok", "fine"),
    ]
    assert capfd.readouterr() == ("", "")


def test_json_is_one_object_and_the_exit_code_tells_of_bad_findings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", CHECKS)
    assert CliRunner().invoke(app, ["doctor", "--json"]).exit_code == 1
    report = json.loads(capfd.readouterr().out)
    assert report["healthy"] is False
    expected = {"status": "bad", "found": "OSError: the disk is gone", "advice": "buy a disk"}
    assert report["findings"]["broken"] == expected
    monkeypatch.setattr(doctor, "CHECKS", CHECKS[1:])
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


@pytest.mark.parametrize(
    ("version", "status"), [("2.6.0", "ok"), ("2.13.0+cpu", "ok"), ("2.5.1", "bad"), ("3.0", "bad")]
)
def test_versions_are_held_against_the_requirement(version: str, status: str) -> None:
    assert doctor.in_range("torch", version, ">=2.6,<2.14", "").status == status


def test_packages_come_from_the_metadata_of_dist_gat(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=99", "no-such-package>=1", "polars>=1", "pytest>=999; extra == 'dev'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    assert [(f.name, f.status) for f in doctor.check_packages()] == [
        ("numpy", "bad"),
        ("no-such-package", "bad"),
        ("polars", "ok"),
    ]


@pytest.mark.parametrize(
    ("required", "status", "advice"),
    [
        ("dgl==1.1.3; python_version >= '3.10'", "warn", "pip install --force-reinstall --no-deps 'dgl==1.1.3'"),
        ("dgl==1.1.3; python_version < '3.10'", "ok", ""),
    ],
)
def test_without_dgl_our_own_loader_is_examined_and_named(
    monkeypatch: pytest.MonkeyPatch, required: str, status: str, advice: str
) -> None:
    for name, value in {
        "dgl": None, "WHY_NOT_DGL": "OSError: libdgl.so", "DataLoader": without_dgl.DataLoader,
        "BlockSampler": without_dgl.BlockSampler,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"dist_gat.sampling.dgl.{name}", value)
    monkeypatch.setattr("importlib.metadata.requires", lambda name: [required])
    (finding,) = doctor.check_dgl()
    assert (finding.status, finding.advice) == (status, advice)
    assert "our own DataLoader works" in finding.found
    assert ("OSError: libdgl.so" in finding.found) is (status == "warn")


@pytest.mark.parametrize("name", ["OMP_THREAD_LIMIT", "OMP_PROC_BIND", "KMP_AFFINITY"])
def test_settings_that_throttle_workers_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    (finding,) = doctor.check_threads()
    assert finding.status == "warn"
    assert f"unset {name}" in finding.advice


def test_ray_token_warns_where_it_is_off_missing_or_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))

    def finding() -> Finding:
        (found,) = doctor.check_ray_token()
        return found

    assert (finding().status, "ray get-auth-token" in finding().advice) == ("warn", True)
    token.write_text("secret")
    token.chmod(0o644)
    assert (finding().status, finding().advice) == ("warn", f"chmod 600 {token}")
    token.chmod(0o600)
    assert finding() == Finding("ray token", "ok", f"from {token}")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert (finding().status, "RAY_AUTH_MODE=token" in finding().advice) == ("warn", True)


@pytest.mark.ray
def test_this_host_is_healthy_and_the_doctor_is_quiet() -> None:
    command = [str(Path(sys.executable).with_name("dist-gat")), "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads(result.stdout)
    assert {name: f for name, f in report["findings"].items() if f["status"] == "bad"} == {}
    assert (result.returncode, report["healthy"], result.stderr) == (0, True, "")
    assert {"python", "torch", "dgl health", "metis health", "torch.distributed health", "numba kernels"} <= set(
        report["findings"]
    )
    # Ray left alone takes the host's outward address, and listens on all interfaces
    assert report["findings"]["ray health"]["found"].endswith("listens on 127.0.0.1")
