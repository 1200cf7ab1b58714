"""Corrected stages of a table, and what is refused."""

import numpy as np
import pytest

from data.terms import InputError
from evaluation.corrections import corrected
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
        "\n".join(
            [
                "epoch,stage,model_stage,probability,corrected",
                "0,N1,W,0.9,true",
                "1,N1,N1,0.4,false",
                "2,REM,REM,0.9,false",
            ]
        )
    )
    twice = corrected(again, tmp_path / "c.csv")
    assert twice.stages.tolist() == [1, 1, 4] and twice.about["corrections"]["each"] == [[0, "", ""]]


def test_a_table_by_hand_lists_only_corrected_epochs(night, tmp_path):
    (tmp_path / "c.csv").write_text("stage,who,epoch\nN3,Ann,2\nW,Ann,0\nN2,Bob,1\n")
    once = corrected(night, tmp_path / "c.csv")
    assert once.stages.tolist() == [0, 2, 3] and once.model_stages.tolist() == [0, 1, 4]
    assert once.about["corrections"] == {"epochs": 2, "who": ["Ann", "Bob"], "each": [[1, "Bob", ""], [2, "Ann", ""]]}
    (tmp_path / "c.csv").write_text("epoch, stage\n1, REM\n\n")
    assert corrected(once, tmp_path / "c.csv").stages.tolist() == [0, 4, 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a table of corrections"),
        ("epoch,stage\n1,N3,\n", "has lines with more values than its first line has names"),
        (HEAD + '0,"W', "is not a table of corrections"),
        (
            WHOLE.replace("stage,model", "stages,model"),
            "it has no column stage: it needs a first line that names epoch",
        ),
        (WHOLE.replace("N2", "S2"), "line 3: 'S2' is not a stage: write W, N1, N2, N3, REM or unscored."),
        (WHOLE.replace("REM", "R"), "line 4: 'R' is not a stage"),
        (WHOLE.replace("\n1,", "\none,"), "line 3: 'one' is not an epoch of this night: write 0 to 2."),
        (WHOLE.replace("\n1,", "\n0,"), "lists epoch 0 more than once: keep one of these lines."),
        (WHOLE.replace("\n1,", "\n\n1,"), "line 3: '' is not an epoch"),
        (HEAD + "0,W,W,0.9,false,,\n", "lists 1 of the 3 epochs of n, although a table with model_stage lists each"),
        (WHOLE.replace("\n1,", "\n99999999999999999999,"), "line 3: '99999999999999999999' is not an epoch"),
        ("epoch,stage\n1\n", "line 2: '' is not a stage"),
        ("epoch,stage\n-1,N3\n", "line 2: '-1' is not an epoch"),
        ("epoch,stage\n1.0,N3\n", "line 2: '1.0' is not an epoch"),
        ("epoch,stage\n3,N3\n", "line 2: '3' is not an epoch of this night: write 0 to 2."),
        ("epoch,stage\n1,N3\n1,N2\n", "lists epoch 1 more than once"),
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
