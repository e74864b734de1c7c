"""The house: a room imports only what stands above it, nothing goes round in a circle, what is there is shipped."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "visionkit"

# From the top of the house to its bottom; a room may import those before it. What has no comment is a room of its own.
ROOMS = [
    "errors",
    "opencv_check",  # standard library only
    "missing",
    "resources",
    "structures",
    "geometry",
    "io",
    "layers",
    "inspection",  # of Keras networks: sizes, costs, receptive fields
    "nets",
    "crf",
    "weights",
    "runtime",
    "tasks",
    "draw",
    "pipeline",
    "train",
    "evaluate",
    "export",
    "compress",
    "cluster",
    "api",  # what `import visionkit` offers
    "cli",
    "__main__",
]
# The package itself offers its names lazily, and so may name rooms below; anyone may read its version.
FRONT = "visionkit"


def module_name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, name: str, modules: set[str]) -> set[str]:
    """Modules of the package that a file imports, anywhere in it: inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
    return {module for module in found if module in modules and module != name}


def graph_of(package: Path) -> dict[str, set[str]]:
    files = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return {name: imports_of(path, name, set(files)) for name, path in files.items()}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FRONT


def upward_edges(graph: dict[str, set[str]]) -> list[str]:
    wrong = []
    for module, imported in graph.items():
        here = room_of(module)
        for other in sorted(imported):
            there = room_of(other)
            if FRONT in (here, there) or here == there:
                continue
            if ROOMS.index(there) > ROOMS.index(here):
                wrong.append(f"{module} imports {other}, which stands below it")
    return wrong


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Circles of modules that import each other, each as the path that closes it."""
    found, state, path = [], {}, []

    def visit(module):
        state[module] = "open"
        path.append(module)
        for other in sorted(graph[module]):
            if state.get(other) == "open":
                found.append([*path[path.index(other) :], other])
            elif other not in state:
                visit(other)
        path.pop()
        state[module] = "done"

    for module in graph:
        if module not in state:
            visit(module)
    return found


GRAPH = graph_of(PACKAGE)


def test_every_room_has_its_place():
    assert {room_of(module) for module in GRAPH} - {FRONT} <= set(ROOMS)


def test_no_room_imports_what_stands_below_it():
    assert upward_edges(GRAPH) == []


def test_no_imports_go_round():
    without_front = {module: others - {FRONT} for module, others in GRAPH.items() if module != FRONT}
    assert cycles(without_front) == []


def test_nothing_but_the_entry_imports_the_command_line():
    users = {module for module, others in GRAPH.items() if any(room_of(other) == "cli" for other in others)}
    assert {room_of(module) for module in users} <= {"cli", "__main__"}


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("from visionkit.cli import main", 1),
        ("def f():\n    from visionkit import cli", 1),
        ("from ..tasks import track", 1),
        ("import visionkit.pipeline.line", 1),
        ("from visionkit.errors import InputError", 0),
        ("from visionkit import __version__", 0),
    ],
)
def test_the_walk_sees_an_upward_import(tmp_path, statement, wrong):
    package = tmp_path / "visionkit"
    for module in ("__init__", "errors", "cli/__init__", "io/__init__", "tasks/__init__", "tasks/track"):
        path = package / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (package / "pipeline").mkdir()
    (package / "pipeline" / "line.py").write_text("")
    (package / "io" / "read.py").write_text(statement)
    assert len(upward_edges(graph_of(package))) == wrong


def test_the_walk_sees_a_circle():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_folder_of_code_is_shipped():
    named = set(config()["options"]["packages"].split())
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in PACKAGE.rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert named == there | {"visionkit._models", "visionkit._pipelines"}


def test_the_edge_set_has_the_ranges_of_the_base():
    lines = (ROOT / "requirements-edge.txt").read_text(encoding="utf-8").splitlines()
    edge = {line for line in lines if line and not line.startswith("#")}
    base = {line.strip() for line in config()["options"]["install_requires"].splitlines()}
    assert edge - base == {"opencv-python-headless>=5.0,<5.1"}
    assert "opencv-python>=5.0,<5.1" in base


# Where each heavy library may be imported at all; everywhere else not even inside a function.
ALLOWED = {
    "tensorflow": {"runtime", "export", "compress"},
    "tf_keras": {"compress"},
    "tensorflow_model_optimization": {"compress"},
    "ai_edge_litert": {"runtime"},
    "onnxruntime": {"runtime"},
    "openvino": {"runtime"},
}


def outside_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("library", ALLOWED)
def test_a_heavy_library_stays_in_its_rooms(library):
    users = {module_name(path, PACKAGE) for path in PACKAGE.rglob("*.py") if library in outside_imports(path)}
    assert {room_of(module) for module in users} <= ALLOWED[library]


def test_no_file_is_longer_than_400_lines():
    long = {
        str(path.relative_to(ROOT)): count
        for path in PACKAGE.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
