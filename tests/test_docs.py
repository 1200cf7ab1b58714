"""What the README, the manual and the docstrings say can be done: their examples run, their links and options exist."""

import ast
import doctest
import re
import runpy
import shlex
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import edfio
import numpy as np
import pytest
from small_backbone import SIZES
from toolkit import PACKAGES

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/**/*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
BLOCK = re.compile(r"^( *)(`{3,}|:{3,})(\S*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
MODULES = [
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((PROJECT / package).rglob("*.py"))
    if re.search(r"^ *>>> ", path.read_text(), re.MULTILINE)
]
SCRIPTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]

# One process makes the models.
pytestmark = pytest.mark.xdist_group("manual")


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in a language on a page."""
    return [code for _, _, name, code in BLOCK.findall(page.read_text()) if name == language]


def named(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory):
    """A folder as the examples take it for granted: a recording of six minutes, and models, with random weights."""
    from data.databases import DATABASES
    from data.recipe import Recipe
    from recsleep.model import RecSleepNet
    from runs.networks import save_model
    from synth import SynthSleepNetEncoder, load_embedder
    from synth.layers import frames

    folder = tmp_path_factory.mktemp("user")
    signal = np.random.default_rng(0).normal(0, 20, 36_000)
    edfio.Edf([edfio.EdfSignal(signal, 100, label="C3-A2", physical_dimension="uV")]).write(folder / "night.edf")
    network = RecSleepNet(filters=4, first_kernel=12, lstm_units=4, block_kernel=3)
    of_stager = {"db": "sleepedfx", "channel": "C3-A2", "split": {"test": [0]}, "amplitude": 12.5}
    save_model(folder / "pretrained_model/sleepedfx/0", network, of_stager)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SIZES.items():
            patch.setattr(frames, name, value)
        small = {"dim": 16, "heads": 2, "depth": 1}
        encoder = SynthSleepNetEncoder(("eeg",), {"window": 3, "step": 9, **small}, **small)
        recipe = Recipe.of_nights(DATABASES["shhs"], {"eeg": "EEG_C4"}, {}, scaled=True).to_json()
        save_model(folder / "output/shhs/0/multimodal/eeg", encoder, {"db": "shhs", "recipe": recipe})
        # It writes the ONNX file with which the encoder is used from now on.
        load_embedder(folder / "output/shhs/0")
    return folder


@pytest.fixture
def in_users_folder(users_folder, monkeypatch):
    monkeypatch.chdir(users_folder)


@pytest.mark.usefixtures("in_users_folder")
@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings_are_true(module):
    failed, tried = doctest.testmod(import_module(module))
    assert tried and not failed


def test_no_meaning_is_taken_for_a_list():
    """To Sphinx, ``U.``, ``3.`` and ``(a)`` at the beginning of an argument's meaning are numbers of a list's items."""
    sources = [path.read_text() for package in PACKAGES for path in (PROJECT / package).rglob("*.py")]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    meanings = "\n".join(ast.get_docstring(node) or "" for node in nodes)
    number = r"\(?(?:[A-Za-z]|[0-9]+|[ivxlcdmIVXLCDM]+|#)[.)]"
    assert re.findall(rf"^ +[\w, ]+: {number}(?: .*)?$", meanings, re.MULTILINE) == []


@pytest.mark.usefixtures("in_users_folder")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_python_on_a_page_runs(page, capsys):
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), {})
    assert "Traceback" not in capsys.readouterr().err


def commands(page: Path) -> list[list[str]]:
    """The commands in blocks of a shell's lines on a page, as lists of words."""
    lines = "".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """The module of ours that a command runs, or "" if it is none, and the words after its name."""
    program, *rest = words
    if Path(program).name in SCRIPTS:
        return SCRIPTS[Path(program).name].partition(":")[0], rest
    if Path(program).name != "python":
        return "", []
    if rest[0] == "-m" and rest[1].partition(".")[0] in (*PACKAGES, "benchmarks"):
        package = bool(find_spec(rest[1]).submodule_search_locations)
        return rest[1] + ".__main__" * package, rest[2:]
    return (rest[0].removesuffix(".py"), rest[1:]) if rest[0].endswith(".py") else ("", [])


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_commands_on_a_page_are_understood(page):
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(page):
        module, options = module_of(words)
        assert words[0] != "make" or set(words[1:]) <= set(targets)
        if module in ("trainer", "predict"):
            import_module(module).parse(options)  # It exits where an option or a value is unknown.


@pytest.fixture(scope="module")
def helps():
    """The text of ``--help`` of a command of ours, by its module."""
    known: dict[str, str] = {}

    def text(module: str, capsys) -> str:
        if module not in known:
            with pytest.raises(SystemExit) as ended:
                import_module(module).main(["--help"])
            known[module] = capsys.readouterr().out
            assert ended.value.code == 0
        return known[module]

    return text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_the_text_have_their_options(page, helps, capsys):
    inline = re.findall(r"(?<!`)`(python [^`]+|recsleep-[^`]+)`(?!`)", page.read_text())
    for words in [*map(str.split, inline), *commands(page)]:
        module, rest = module_of(words)
        if module.startswith("benchmarks") or not module:
            continue
        for option in [word.partition("=")[0] for word in rest if word.startswith("--")]:
            assert re.search(rf"{option}\b", helps(module, capsys)), (words, option)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == PROJECT], ids=named)
def test_links_lead_somewhere(page):
    """Sphinx checks those of the manual."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    assert [link for link in links if "://" not in link and not (PROJECT / link).exists()] == []


def test_the_readme_can_be_read_to_its_end():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150


def test_the_specification_on_the_page_can_be_read(tmp_path):
    from data.prepare.custom import load_spec

    (text,) = blocks(PROJECT / "docs/how_to/prepare.md", "toml")
    (tmp_path / "lab.toml").write_text(text)
    assert [channel.name for channel in load_spec(tmp_path / "lab.toml").channels] == ["C4-M1"]


@pytest.mark.parametrize(("page", "left_out"), [("how_to/prepare.md", {"synthetic"}), ("reference/files.md", set())])
def test_every_database_has_its_row(page, left_out):
    """Synthetic nights are not made from recordings."""
    from data.databases import DATABASES

    table = (PROJECT / "docs" / page).read_text().partition("\n| `--db` |")[2].partition("\n\n")[0]
    first_cells = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(first_cells))) == sorted(DATABASES.keys() - left_out)


def test_every_benchmark_has_its_row():
    files = [*(PROJECT / "benchmarks").glob("*.py"), *(PROJECT / "benchmarks").glob("*/__main__.py")]
    runnable = {path.relative_to(PROJECT).with_suffix("").parts[1] for path in files if "def main(" in path.read_text()}
    table = (PROJECT / "docs/reference/commands.md").read_text().partition("## Benchmarks")[2]
    assert runnable == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_the_figures_are_those_that_the_script_draws():
    drawn = runpy.run_path(str(PROJECT / "docs/figures/draw.py"))["FIGURES"]
    kept = {path.stem: path.read_text() for path in (PROJECT / "docs/figures").glob("*.svg")}
    assert kept == drawn


def test_the_citation_is_of_this_version():
    import yaml

    from data.terms import VERSION

    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == VERSION
