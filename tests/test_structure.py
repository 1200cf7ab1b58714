"""Which module imports which: in one direction only, and without TensorFlow where nothing is trained."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import find_spec

import grimp
import pytest
from toolkit import COMMANDS

# Each package, and the others that it may import.
MAY_IMPORT = {
    "data": set(),
    "evaluation": {"data"},
    "runs": {"data"},
    "staging": {"data", "evaluation", "runs"},
    "recsleep": {"data", "evaluation", "runs", "staging"},
    "synth": {"data", "evaluation", "runs", "staging"},
}
# The exceptions: commands share command_line.py, and what trains takes its hyper-parameters from config.py.
EXCEPTIONS = {
    *((command, "command_line") for command in COMMANDS),
    ("data.prepare.__main__", "config"),
    ("data.prepare.batch", "runs.workers"),
    ("runs.settings", "config"),
}
# The commands, and the modules that prepare nights or train. All others are what a recording is staged with.
NOT_FOR_STAGING = (
    *COMMANDS,
    "data.prepare",
    "data.streams",
    "recsleep.beginning",
    "recsleep.fold",
    "recsleep.losses",
    "runs.budget",
    "runs.cross_validation",
    "runs.identity",
    "runs.machine",
    "runs.resumable",
    "runs.settings",
    "synth.embeddings",
    "synth.in_training",
    "synth.learner",
    "synth.replicas",
    "synth.steps",
)

WITHOUT_TENSORFLOW = """
import os, sys
from importlib import import_module

if os.environ["KERAS_BACKEND"] == "tensorflow":
    import keras  # Keras itself may import TensorFlow, our modules may not.
sys.modules["tensorflow"] = None
for name in sys.argv[1:]:
    try:
        import_module(name)
    except ImportError as error:
        print(name, "needs", error.name)
"""


def within(module: str, packages) -> bool:
    """Whether ``module`` is one of ``packages`` or inside one."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


@pytest.fixture(scope="module")
def graph(project) -> grimp.ImportGraph:
    """The imports of every module of the toolkit, those inside functions too, those for type checkers left out."""
    graph = grimp.build_graph(
        *MAY_IMPORT, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    # Grimp reads packages only; these are the modules beside them.
    for path in project.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for module in set(named) & graph.modules:
                graph.add_import(importer=path.stem, imported=module)
    return graph


@pytest.fixture(scope="module")
def ours(graph, project) -> dict[str, set[str]]:
    """The modules of the toolkit, and which others of them each imports."""
    commands = {path.stem for path in project.glob("*.py")}
    modules = {module for module in graph.modules if within(module, MAY_IMPORT) or module in commands}
    return {module: graph.find_modules_directly_imported_by(module) & modules for module in modules}


@pytest.fixture(scope="module")
def for_staging(ours) -> list[str]:
    return sorted(module for module in ours if within(module, MAY_IMPORT) and not within(module, NOT_FOR_STAGING))


def test_no_modules_import_each_other_in_a_circle(ours):
    TopologicalSorter(ours).prepare()  # Raises an error that names a circle.


def test_imports_go_in_one_direction(ours):
    wrong = [
        f"{module} imports {imported}"
        for module in ours
        for imported in ours[module]
        if (package := module.partition(".")[0]) in MAY_IMPORT
        and not within(imported, MAY_IMPORT[package] | {package})
        and not any(within(module, [one]) and within(imported, [other]) for one, other in EXCEPTIONS)
    ]
    assert sorted(wrong) == []


def test_staging_needs_neither_the_commands_nor_preparation(graph, for_staging):
    chains = [
        graph.find_shortest_chain(module, other)
        for module in for_staging
        for other in graph.find_upstream_modules(module)
        if within(other, ("command_line", "config", "data.prepare", "predict", "trainer"))
    ]
    assert chains == []


@pytest.mark.parametrize("backend", [pytest.param("tensorflow", marks=pytest.mark.long), "torch"])
def test_staging_needs_no_tensorflow(backend, for_staging, project):
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed: the newest libraries of `make test-latest` include it")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *for_staging],
        cwd=project,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stdout, ran.stdout
