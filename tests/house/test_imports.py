"""The house: imports run one way, heavy packages stay in their rooms, and the core stays small."""

import ast
from pathlib import Path

import pytest

from deflare_core.system.places import PROJECT_ROOT

CORE = (
    *("system", "events", "windows", "kernels", "io", "config", "codec", "dataset", "model", "losses", "streams"),
    *("deflaring", "checkpoint", "loop", "training", "inference", "scores", "show", "app", "__main__", "__init__"),
)
SIMULATOR = (
    *(
        "config",
        "scalars",
        "scene",
        "optics",
        "sensor",
        "composition",
        "recorded",
        "simulation",
        "gpu",
        "pairs",
        "stream",
        "tools",
    ),
)
FLOORS = [f"deflare_core.{name}" for name in CORE] + [f"data_simu.{name}" for name in (*SIMULATOR, "__init__")]
"""Every room, from the bottom up, of each package."""
SEEN_BY_SIMULATOR = {f"deflare_core.{name}" for name in CORE[: CORE.index("dataset")]}
DOORS = {"deflare_core.loop", "deflare_core.app"}
"""The rooms of the core that know the simulator."""
ONLY_IN = {
    **{name: {"deflare_core.show", "data_simu.tools"} for name in ("matplotlib", "plotly", "av", "anywidget")},
    **{name: {"deflare_core.app"} for name in ("papermill", "nbconvert", "IPython")},
    "triton": {"deflare_core.kernels"},
}
FILES = [path for package in ("deflare_core", "data_simu") for path in sorted((PROJECT_ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; `from package import module` names the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_folder = (PROJECT_ROOT / node.module.replace(".", "/")).is_dir()
            names = {f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"}
            found |= names if is_folder else {node.module}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts)


def room_of(module: str) -> str:
    room = ".".join(module.split(".")[:2])
    return room if room in FLOORS else f"{module.split('.')[0]}.__init__"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_from_below(path):
    room = room_of(module_of(path))
    for module in imported(path):
        package, other = module.split(".")[0], room_of(module)
        if package in ONLY_IN:
            assert room in ONLY_IN[package], f"{path} imports {package}, which belongs in {ONLY_IN[package]}."
        elif package == "data_simu" and room.startswith("deflare_core"):
            assert room in DOORS, f"{path} imports {module}; only {DOORS} know the simulator."
        elif package == "deflare_core" and room.startswith("data_simu.") and room != "data_simu.tools":
            assert other in SEEN_BY_SIMULATOR, f"{path} imports {module}, which stands above what the simulator sees."
        elif package == room.split(".")[0] and other != room:
            assert FLOORS.index(other) < FLOORS.index(room), f"{path} imports {module}, which stands above it."


def test_no_files_import_each_other_in_a_circle():
    graph = {module_of(path): imported(path) & {module_of(p) for p in FILES} for path in FILES}
    while free := [module for module, below in graph.items() if not below & graph.keys()]:
        for module in free:
            del graph[module]
    assert not graph, f"These files stand in a circle, or above one: {sorted(graph)}."


def test_the_core_is_small():
    core = list((PROJECT_ROOT / "deflare_core").glob("*.py"))
    lines = sum(len(path.read_text().splitlines()) for path in core)
    assert len(core) <= 12, f"The core is at most 12 files; it has {len(core)}."
    assert lines <= 2500, f"The core is at most 2,500 lines; it has {lines}."
