"""The recipes and cluster files that come with dist_gat: inside the package in a wheel, beside it in a clone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import atomic_file

PACKAGE = Path(__file__).parents[1]
IN_WHEEL = PACKAGE / "shipped"  # where pyproject.toml puts them
FOLDER = IN_WHEEL if IN_WHEEL.is_dir() else PACKAGE.parent


def shipped_files() -> dict[str, Path]:
    """File by name: recipes as `ml-100k` or `quality/tiktok`, spaces as `spaces/default`, and `launch/kuberay.yaml`."""
    configs = FOLDER / "configs"
    recipes = {str(file.relative_to(configs).with_suffix("")): file for file in configs.rglob("*.yaml")}
    launch = {str(file.relative_to(FOLDER)): file for file in (FOLDER / "launch").glob("*.*")}
    return dict(sorted(recipes.items(), key=by_folder)) | dict(sorted(launch.items()))


def by_folder(entry: tuple[str, Path]) -> tuple[str, str]:
    """Sorts what lies in no folder first."""
    folder, _, name = entry[0].rpartition("/")
    return folder, name


def about(file: Path) -> str:
    """The first sentence of the comment at a file's top, or the title of a page."""
    return " ".join(top_of(file)).partition(". ")[0].rstrip(".")


def top_of(file: Path) -> Iterator[str]:
    """The first lines that begin with `#`, without it."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()


def find_shipped(name: str) -> Path:
    """The file of a name; `.yaml` and `configs/` may be part of a recipe's. Raises `ConfigError` for an unknown one."""
    files = shipped_files()
    found = files.get(name) or files.get(name.removeprefix("configs/").removesuffix(".yaml"))
    if found is None:
        raise ConfigError(f"{name}: no recipe of that name; there are {', '.join(files)}")
    return found


def copy_shipped(name: str, output: Path, force: bool = False) -> None:
    """Copy the file of a name to `output`. Raises `ConfigError` where there is a file already, unless `force`."""
    source = find_shipped(name)
    if output.exists() and not force:
        raise ConfigError(
            f"{output}: there is a file already; choose another with --output, or replace it with --force"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(output) as file:
            shutil.copyfile(source, file)
    except OSError as err:
        raise StorageError(f"{output}: can't be written: {err}; choose another place with --output") from None
