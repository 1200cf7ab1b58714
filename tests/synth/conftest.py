"""A fold of SynthSleepNet that is trained once, for all tests of its steps."""

import io
from contextlib import redirect_stdout

import pytest
from recordings import as_shhs
from small_backbone import small_backbones
from trained_fold import MODALITIES, SUBJECTS, command

import trainer
from data.prepare.__main__ import main as prepare
from data.prepare.synthetic import make_night
from runs.settings import configure


@pytest.fixture(scope="session")
def synthetic():
    """Nine synthetic nights of some 18 minutes, by subject."""
    config = configure("synthetic", ["hours=0.3", "synthetic_seed=2"]).synthetic
    return {subject: make_night(number, config) for number, subject in enumerate(SUBJECTS)}


@pytest.fixture(scope="session")
def trained(synthetic, tmp_path_factory):
    """From EDF and XML to fold 1's test figures, undisturbed: the folder of it all, and what was printed."""
    folder = tmp_path_factory.mktemp("pretrained")
    for subject, night in synthetic.items():
        as_shhs(folder / "raw", subject, night)
    channels = ["--select_ch", "EEG_C4", "Airflow"]
    where = ["--data", str(folder / "raw"), "--out", str(folder / "nights")]
    assert prepare(["--db", "shhs", *where, *channels]) == 0
    with small_backbones(), redirect_stdout(io.StringIO()) as printed:
        assert trainer.main(command(folder, *MODALITIES)) == 0
    return folder, printed.getvalue()
