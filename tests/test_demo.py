"""The demo: what a newcomer runs first."""

import shutil

import pytest

from data.store import read_json
from examples import demo


@pytest.mark.long
def test_the_demo_stages_sleepers_that_it_did_not_learn_from(tmp_path, monkeypatch, capsys, project):
    monkeypatch.chdir(tmp_path)
    # Where `make demo` has run, as for the manual, its training is finished and is not repeated.
    if (project / demo.FOLDER / "models").exists():
        shutil.copytree(project / demo.FOLDER, demo.FOLDER)
    assert demo.main() == 0
    tested = read_json(demo.FOLDER / "models/synthetic/0/metadata.json")["test"]
    staged = read_json(demo.FOLDER / "results/sleeper.json")["agreement"]
    assert tested["macro_f1"] > 0.7 and staged["macro_f1"] > 0.6
    page = (tmp_path / demo.FOLDER / "results/sleeper.html").resolve()
    assert page.exists() and str(page) in capsys.readouterr().out
