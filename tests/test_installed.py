"""The package after ``pip install``: it is imported and run from a folder whose own files bear the same names."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
from toolkit import PACKAGES

from data.terms import VERSION
from runs.saved import versions

FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements.txt")
NAMES_OF_A_NOTEBOOK = ("config", "parallel", "progress")

IMPORT = f"""
import evaluation.report, importlib.metadata, recsleep, synth  # The template of the page is read, too.
from importlib import import_module
from recsleep import LiveStager, load_stager, stage

assert importlib.metadata.version("recsleep") == "{VERSION}"
print(*(import_module(name).__file__ for name in {PACKAGES}), sep="\\n")
"""


@pytest.fixture
def sources(tmp_path, project) -> Path:
    """A copy of what is installed, since pip writes into the folder it builds; with nights, as a user has them."""
    copied = [project / name for name in FILES] + list(project.glob("*.py"))
    for package in PACKAGES:
        copied += [
            path for ending in ("**/*.py", "*.csv", "*.html", "*.js") for path in (project / package).glob(ending)
        ]
    for path in copied:
        target = tmp_path / "sources" / path.relative_to(project)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "sources/data/isruc").mkdir()
    (tmp_path / "sources/data/isruc/subject1.npz").touch()
    return tmp_path / "sources"


@pytest.fixture
def notebook(tmp_path) -> Path:
    """A user's folder: modules that must not be imported, and a folder ``data`` that is not a package."""
    folder = tmp_path / "notebook"
    (folder / "data").mkdir(parents=True)
    for name in NAMES_OF_A_NOTEBOOK:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the {name} of the notebook was imported')")
    return folder


@pytest.mark.long
@pytest.mark.skipif(int(version("setuptools").partition(".")[0]) < 77, reason="the package is built by setuptools 77")
@pytest.mark.parametrize("options", [["--editable"], []], ids=["editable", "wheel"])
def test_an_installed_toolkit_works_from_a_folder_with_files_of_the_same_names(options, sources, notebook, tmp_path):
    venv.create(tmp_path / "environment", with_pip=False)
    (own,) = tmp_path.glob("environment/lib/python*/site-packages")
    # The new environment sees the packages of this one, so that nothing is downloaded.
    (own / "outer.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def output(*command: str | Path) -> str:
        ran = subprocess.run(command, cwd=notebook, env=settings, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    commands = tmp_path / "environment/bin"
    offline = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed")
    output(commands / "python", "-m", "pip", "install", *offline, *options, sources)
    found = output(commands / "python", "-c", IMPORT).split()
    home = sources if options else own
    assert found == [str(home / package / "__init__.py") for package in PACKAGES]
    assert not (own / "data/isruc").exists()
    assert "ucddb      25 folds" in output(commands / "python", "-m", "recsleep.weights", "--list")
    for command in tomllib.loads((sources / "pyproject.toml").read_text())["project"]["scripts"]:
        assert output(commands / command, "--help").startswith("usage: ")


def test_a_fresh_process_does_not_import_the_modules_of_the_working_folder(notebook, tmp_path, project):
    script = tmp_path / "script.py"
    script.write_text(
        "from runs.settings import configure\nfrom runs.workers import Alone\n"
        "print(Alone(configure)('ucddb').database.db)"
    )
    ran = subprocess.run(
        [sys.executable, script],
        cwd=notebook,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "ucddb\n", ran.stderr


def test_every_result_tells_the_version_of_the_toolkit():
    assert versions()["recsleep"] == VERSION
