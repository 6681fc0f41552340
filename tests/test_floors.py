"""The rules of the package's floors, read from its source: who may import whom, and what is never used.

Each rule is a function of sources, and is shown to fail on a small source that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

import dist_gat

ROOT = Path(dist_gat.__file__).parent
ROOMS = (
    "kernels", "base", "config", "privacy", "exchange", "text", "data", "graph", "sampling", "nn", "evaluate", "tasks",
    "optim", "filters", "baselines", "checkpoints", "serve", "export", "convert", "explain", "train", "plan", "jobs",
    "launcher", "server", "workflows", "tune", "pages", "api", "cli",
)  # fmt: skip
FLOOR_OF = {name: number for number, name in enumerate(ROOMS)}
ALONE = {
    "ray": ("dist_gat.launcher.ray", "dist_gat.launcher.ray_tasks", "dist_gat.launcher.submit", "dist_gat.tune.tuner"),
    "optuna": ("dist_gat.tune.tuner",),
    "tensorboard": ("dist_gat.train.run_log", "dist_gat.export.projector"),
    "torch.utils.tensorboard": ("dist_gat.train.run_log",),
    "dgl": ("dist_gat.sampling.dgl",),
    "pymetis": ("dist_gat.graph.assign",),
    "implicit": ("dist_gat.baselines.als",),
    "transformers": ("dist_gat.text.image_encoder",),
    "sentence_transformers": ("dist_gat.text.text_encoder",),
    "peft": ("dist_gat.text.text_tower",),
    "fastapi": ("dist_gat.server.web_app",),
    "faiss": ("dist_gat.serve.item_index",),
    "uvicorn": ("dist_gat.server.server_process",),
    "prometheus_client": ("dist_gat.server.server_metrics", "dist_gat.server.web_app"),
    "dp_accounting": ("dist_gat.privacy.accountant",),
    "cryptography": ("dist_gat.privacy.noise", "dist_gat.data.pseudonyms"),
    "triton": ("dist_gat.kernels.attend_triton", "dist_gat.kernels.row_adam_triton"),
}
MAX_LINES = 400
Sources = dict[str, str]


def read_package() -> Sources:
    """Source by module name, without the lazy `dist_gat/__init__.py`."""
    sources = {}
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT.parent).with_suffix("").parts
        sources[".".join(names[:-1] if names[-1] == "__init__" else names)] = path.read_text(encoding="utf-8")
    del sources["dist_gat"]
    return sources


def imports_of(module: str, source: str) -> set[str]:
    """Dotted names that a module imports anywhere, also in functions; of `from a import b` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return found


def our_imports(sources: Sources) -> dict[str, set[str]]:
    """For each module the modules of ours that it imports."""
    return {module: (imports_of(module, text) & sources.keys()) - {module} for module, text in sources.items()}


def folder_of(module: str) -> str:
    return module.split(".")[1]


def upward_imports(sources: Sources) -> list[str]:
    """Imports of a higher floor; also modules that stand on no floor."""
    lost = [f"{module} is on no floor" for module in sources if folder_of(module) not in FLOOR_OF]
    return lost or [
        f"{module} imports {other}"
        for module, others in our_imports(sources).items()
        for other in sorted(others)
        if FLOOR_OF[folder_of(other)] > FLOOR_OF[folder_of(module)]
    ]


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that reach themselves."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += graph.get(node, ())
        reached[start] = seen
    return sorted(node for node in graph if node in reached[node])


def folder_imports(sources: Sources) -> dict[str, set[str]]:
    """For each sub-package, or module beside them, the others that it imports."""
    graph: dict[str, set[str]] = {folder_of(module): set() for module in sources}
    for module, others in our_imports(sources).items():
        graph[folder_of(module)] |= {folder_of(other) for other in others} - {folder_of(module)}
    return graph


def lodgers(sources: Sources) -> list[str]:
    """Imports of a library outside the modules that may import it."""
    return [
        f"{module} imports {name}"
        for module, text in sources.items()
        for name in sorted(imports_of(module, text))
        for library, homes in ALONE.items()
        if (name == library or name.startswith(library + ".")) and module not in homes
    ]


def unsafe_reads(sources: Sources) -> list[str]:
    """Whatever can run code out of a file: pickle and its kin."""
    found = []
    for module, text in sources.items():
        for name in imports_of(module, text):
            if name.split(".")[0] in ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"):
                found.append(f"{module} imports {name}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "yaml.full_load"
            ):  # fmt: skip
                found.append(f"{module}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module in ("torch", "yaml"):
                found += [f"{module}: {node.module}.{a.name}" for a in node.names if a.name in ("load", "save")]
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                found.append(f"{module}: allow_pickle")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_object_list"):
                found.append(f"{module}: {ast.unparse(node.func)} pickles")
    return found


def long_files(sources: Sources) -> list[str]:
    return [module for module, text in sources.items() if len(text.splitlines()) > MAX_LINES]


@pytest.fixture(scope="module")
def package() -> Sources:
    return read_package()


def test_modules_import_their_floor_or_below(package: Sources) -> None:
    assert len(package) > 50
    assert upward_imports(package) == []


def test_no_module_imports_itself_in_a_circle(package: Sources) -> None:
    assert cycles(our_imports(package)) == []


def test_no_circle_between_the_sub_packages(package: Sources) -> None:
    assert cycles(folder_imports(package)) == []


def test_ray_tensorboard_and_dgl_stay_at_home(package: Sources) -> None:
    assert lodgers(package) == []
    for library, home in [(library, home) for library, homes in ALONE.items() for home in homes]:
        if library != "tensorboard":
            assert any(name.startswith(library) for name in imports_of(home, package[home])), f"{home} is not used"


def test_nothing_reads_or_writes_pickle(package: Sources) -> None:
    assert unsafe_reads(package) == []


def test_no_two_files_have_one_name_and_none_is_loose_at_the_root() -> None:
    names = [path.stem for path in ROOT.rglob("*.py") if path.stem != "__init__"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "api.py"]


def test_no_file_is_long(package: Sources) -> None:
    assert long_files(package) == []


def broken(*lines: Iterable[str], module: str = "dist_gat.graph.a") -> Sources:
    return {
        "dist_gat.graph.b": "from dist_gat.graph import a\n",
        "dist_gat.nn.c": "",
        "dist_gat.evaluate.d": "from dist_gat.nn import c",
        "dist_gat.graph.a": "",
        module: "\n".join(map(str, lines)),
    }


def test_the_rules_pass_a_clean_source() -> None:
    sources = broken("import numpy", "from torch.utils import data", "from dist_gat import errors  # not in here")
    assert upward_imports(sources) == lodgers(sources) == unsafe_reads(sources) == long_files(sources) == []
    assert cycles(our_imports(sources)) == cycles(folder_imports(sources)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import dist_gat.nn.c",
        "from dist_gat.nn.c import Thing",
        "from dist_gat.nn import c as other",
        "from ..nn.c import Thing",
        "from ..nn import c",
        "def f():\n    from dist_gat.nn.c import Thing",
        "if TYPE_CHECKING:\n    from dist_gat.nn.c import Thing",
        "importlib.import_module('dist_gat.nn.c')",
    ],
)
def test_the_rules_find_an_upward_import(line: str) -> None:
    assert upward_imports(broken(line)) == ["dist_gat.graph.a imports dist_gat.nn.c"]


def test_the_rules_find_a_module_on_no_floor() -> None:
    assert upward_imports({"dist_gat.attic.x": ""}) == ["dist_gat.attic.x is on no floor"]


def test_the_rules_find_circles() -> None:
    assert cycles(our_imports(broken("def f():\n    import dist_gat.graph.b"))) == [
        "dist_gat.graph.a",
        "dist_gat.graph.b",
    ]
    # no two modules import each other, yet nn and sampling do
    sources = broken("from dist_gat.evaluate import d", module="dist_gat.nn.e")
    assert cycles(our_imports(sources)) == []
    assert cycles(folder_imports(sources)) == ["evaluate", "nn"]


@pytest.mark.parametrize(
    "line",
    [
        "import ray",
        "def f():\n    from ray.train import torch",
        "from torch.utils.tensorboard import SummaryWriter",
        "from torch.utils import tensorboard",
        "import tensorboard.summary",
        "import dgl.function",
    ],
)
def test_the_rules_find_a_library_out_of_its_home(line: str) -> None:
    assert lodgers(broken(line))


def test_the_rules_let_a_library_be_at_home() -> None:
    assert lodgers({"dist_gat.sampling.dgl": "import dgl\nfrom dgl.dataloading import DataLoader"}) == []
    assert lodgers(broken("from dist_gat.sampling.dgl import DataLoader", "from dist_gat.launcher import ray")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle",
        "x = torch.load(path)",
        "torch.save(x, path)",
        "from torch import load",
        "x = yaml.load(text, yaml.SafeLoader)",
        "read = yaml.unsafe_load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "dist.all_gather_object_list(x)",
    ],
)
def test_the_rules_find_pickle(line: str) -> None:
    assert unsafe_reads(broken(line))


def test_the_rules_find_a_long_file() -> None:
    assert long_files(broken(*["x = 1"] * 401)) == ["dist_gat.graph.a"]
    assert long_files(broken(*["x = 1"] * 400)) == []
