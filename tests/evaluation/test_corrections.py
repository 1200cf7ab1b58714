"""Corrected stages of a table, and what is refused."""

import numpy as np
import pytest

from data.terms import InputError
from evaluation.corrections import COLUMNS, corrected
from evaluation.hypnogram import Hypnogram

HEAD = "epoch,stage,model_stage,probability,corrected,who,when\n"
WHOLE = HEAD + "0,W,W,0.9,false,,\n1,N2,N1,0.4,true,None,2026-01-02T03:04:05.678Z\n2,unscored,REM,0.9,true,007,\n"


@pytest.fixture
def night() -> Hypnogram:
    return Hypnogram("n", np.int32([0, 1, 4]), np.full((3, 5), 0.2, "float32"))


def test_corrections_take_the_stages_over_and_keep_the_models(night, tmp_path):
    (tmp_path / "c.csv").write_text(WHOLE)
    once = corrected(night, tmp_path / "c.csv")
    assert once.stages.tolist() == [0, 2, -1] and once.model_stages.tolist() == [0, 1, 4]
    # A name stays as it is written.
    assert once.about["corrections"] == {
        "epochs": 2,
        "who": ["007", "None"],
        "each": [[1, "None", "2026-01-02T03:04:05.678Z"], [2, "007", ""]],
    }
    # Over the two epochs that both have scored.
    assert once.correction.confusion.sum() == 2 and once.correction.accuracy == 0.5
    # Corrections count from the models' stages, not from earlier corrections; the night on disk tells both.
    once.save_csv(tmp_path / "n.csv")
    again = Hypnogram.read_csv(tmp_path / "n.csv", name="n")
    assert (again.stages == once.stages).all() and (again.model_stages == once.model_stages).all()
    (tmp_path / "c.csv").write_text(
        "\n".join([",".join(COLUMNS), "0,N1,W,0.9,true", "1,N1,N1,0.4,false", "2,REM,REM,0.9,false"])
    )
    twice = corrected(again, tmp_path / "c.csv")
    assert twice.stages.tolist() == [1, 1, 4] and twice.about["corrections"]["each"] == [[0, "", ""]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a table of corrections"),
        (WHOLE.replace("model_stage", "stages"), "it has no column model_stage"),
        (WHOLE.replace("N2", "N5"), "is not a table of corrections"),
        (WHOLE.replace("\n1,", "\none,"), "is not a table of corrections"),
        (WHOLE.replace("\n1,", "\n0,"), "does not list each of the 3 epochs of n once"),
        (HEAD + "0,W,W,0.9,false,,\n", "does not list each of the 3 epochs of n once"),
        (WHOLE.replace("\n1,", "\n99999999999999999999,"), "is not a table of corrections"),
        (WHOLE.replace("N1,", "N3,"), "model_stage of epoch 1 is N3, but the models find N1"),
        (b"\xff\xfe\x00", "is not a text file"),
        (None, "does not exist"),
    ],
)
def test_other_files_are_refused(night, tmp_path, text, told):
    path = tmp_path / "c.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        corrected(night, path)
    assert told in str(error.value) and "c.csv" in str(error.value)
