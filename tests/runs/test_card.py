"""A model's card says what its metadata say, and leaves open what they do not."""

import pytest

from runs.card import TO_BE_FILLED_IN, card

MADE = {"versions": {"recsleep": "2.0.0", "keras": "3.15.1", "backend": "tensorflow"}, "parameters": 76101}
RECIPE = {
    "channels": {"eeg": {"name": "C3A2", "band_hz": None}, "emg": {"name": "chin", "band_hz": [25.0, 49.0]}},
    "unit": "µV",
    "sampling_rate_hz": 100,
    "scaling": "quartiles",
    "level": {"amplitude": 11.0237, "offset": 0.0},
}
TEST = {
    "accuracy": 0.9069,
    "macro_f1": 0.7512,
    "kappa": None,
    "epochs": 473,
    "stages": {"W": {"f1": 0.857}, "N1": {"f1": 0.6818}, "N3": {"f1": None}},
    "confusion_matrix": [[1]],
}
TRAINED = {
    **MADE,
    "db": "ucddb",
    "task": "sleep_stage",
    "split": {"fold": 3, "train": [2, 5, 6], "validation": [7], "test": [8, 9]},
    "recipe": RECIPE,
    "test": TEST,
}


def test_a_card_says_what_the_metadata_say():
    lines = card("RecSleepNet", TRAINED).splitlines()
    assert lines[0] == "# RecSleepNet of ucddb fold 3"
    assert "- Network: RecSleepNet, 76,101 parameters." in lines
    assert "- Takes eeg: C3A2, 100 Hz, µV, scaled by its quartiles." in lines
    assert "- Takes emg: chin, 100 Hz, µV, filtered to 25 to 49 Hz, scaled by its quartiles." in lines
    assert "- Was trained at a level of 11 µV." in lines
    assert "- Database: St. Vincent's / UCD Sleep Apnea Database." in lines
    assert any(line.startswith("- It was trained on 3 subjects, chosen on 1 and tested on 2") for line in lines)
    assert [line for line in lines if line.startswith("| ")] == [
        *("| figure | value |", "| accuracy | 0.907 |", "| macro-F1 | 0.751 |", "| epochs | 473 |"),
        *("| F1 of W | 0.857 |", "| F1 of N1 | 0.682 |", "| F1 of N3 | none |"),
    ]
    assert any(line.startswith("- It finds N1 worst, with an F1 of 0.682") for line in lines)


@pytest.mark.parametrize("metadata", [MADE, {**MADE, "source": {}}])
def test_a_card_leaves_open_what_nobody_knows(metadata):
    text = card("Mamba", metadata)
    assert text.startswith("# Mamba\n")
    assert text.count(TO_BE_FILLED_IN) == 2
    assert "It has not been tested on nights." in text and "worst" not in text


@pytest.mark.parametrize(("transductive", "saw"), [(True, "the signals, but not the stages"), (False, "nothing")])
def test_a_card_says_what_was_seen_of_the_test_subjects(transductive, saw):
    trained = {**TRAINED, "config": {"training": {"transductive": transductive}}}
    assert f"of whom it saw {saw} in training:" in card("RecSleepNet", trained)
