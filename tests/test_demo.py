"""The demo: what a newcomer runs first."""

import pytest

from data.store import read_json
from examples import demo


def test_the_demo_stages_sleepers_that_it_did_not_learn_from(project):
    """What ``make demo`` left in the project's folder, as ``make test`` runs it first."""
    folder = project / demo.FOLDER
    if not (folder / "results/sleeper.json").exists():
        pytest.skip("no demo: `make demo` makes it")
    tested = read_json(folder / "models/synthetic/0/metadata.json")["test"]
    staged = read_json(folder / "results/sleeper.json")["agreement"]
    assert tested["macro_f1"] > 0.7 and staged["macro_f1"] > 0.6
    assert (folder / "results/sleeper.html").exists()
