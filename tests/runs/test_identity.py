"""What makes two runs the same: nothing that decides a result is forgotten, and nothing else counts."""

from dataclasses import asdict, fields, replace

import pytest

from data.terms import InputError
from runs.identity import (
    FINE_TUNING,
    LINEAR_PROBING,
    MULTIMODAL,
    NO_EFFECT,
    RECSLEEPNET,
    STEPS,
    UNIMODAL,
    require_same_run,
    seed_of,
)
from runs.settings import SETTABLE, Config, configure
from synth.terms import TCMS

CONFIG = configure("synthetic")


@pytest.mark.parametrize("preset", [None, "paper"])
def test_every_hyperparameter_decides_a_result_or_is_known_not_to(preset):
    config = configure("ucddb", preset=preset)
    sections = [section.name for section in fields(Config) if section.name != "database"]
    names = {value.name for section in sections for value in fields(getattr(config, section))}
    decide = {name for step in STEPS for name in step}
    assert names | set(SETTABLE) <= decide | set(NO_EFFECT)
    assert not decide & set(NO_EFFECT)


def record(**training) -> dict:
    config = replace(CONFIG, training=replace(CONFIG.training, **training))
    return {"config": asdict(config), "split": {"fold": 0, "train": [1, 2]}, "nights": ["a.npz"]}


def compare(tmp_path, before: dict, now: dict) -> None:
    require_same_run(tmp_path, RECSLEEPNET, before, now, CONFIG)


def test_the_value_that_differs_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        compare(tmp_path, record(passes=3), record(passes=4))
    assert str(error.value) == (
        f"{tmp_path} was trained with passes 3, not 4: use --suffix or --out for the new run, or remove that folder."
    )
    with pytest.raises(InputError, match=r"split train \[1, 2\], not \[1\]"):
        compare(tmp_path, record(), record() | {"split": {"fold": 0, "train": [1]}})


def test_a_value_of_a_later_version_had_its_default(tmp_path):
    before = record()
    del before["config"]["training"]["reconstruction_weight"]
    compare(tmp_path, before, record())
    with pytest.raises(InputError, match=r"reconstruction_weight 1e-05, not 0\.5"):
        compare(tmp_path, before, record(reconstruction_weight=0.5))


def test_what_a_network_began_with_is_noticed(tmp_path):
    compare(tmp_path, record(), record() | {"init": None})
    compare(tmp_path, record() | {"init": "abc"}, record() | {"init": "abc"})
    # Also where an earlier version, which had no such thing, began a run.
    for before, now, told in (
        (None, "abc", "None, not abc"),
        ("abc", "abd", "abc, not abd"),
        ("abc", None, "abc, not"),
    ):
        held = record() if before is None else record() | {"init": before}
        with pytest.raises(InputError, match=f"was trained with init {told}"):
            compare(tmp_path, held, record() | {"init": now})


def test_what_decides_nothing_may_change(tmp_path):
    before = record()
    before["config"]["database"] |= {"title": "Another", "published": [["x", 0.1, 0.2, 0.3]], "night_patterns": []}
    compare(tmp_path, before, record())
    # The hours of synthetic nights decide nothing of another database.
    before["config"]["synthetic"]["hours"] = 1.0
    with pytest.raises(InputError, match=r"hours 1\.0, not 8\.0"):
        compare(tmp_path, before, record())
    now = record()
    for run in (before, now):
        run["config"]["database"]["db"] = "ucddb"
    compare(tmp_path, before, now)


def test_a_pretrained_encoder_is_known_by_its_weights(tmp_path):
    config = configure("shhs", preset="tiny")
    before = {"config": asdict(config), "encoder": "abc", "task": "apnea"}
    now = {**before, "config": asdict(replace(config, training=replace(config.training, unimodal_passes=7)))}
    require_same_run(tmp_path, LINEAR_PROBING, before, now, config)
    with pytest.raises(InputError, match="encoder abc, not abd"):
        require_same_run(tmp_path, LINEAR_PROBING, before, {**now, "encoder": "abd"}, config)


def test_the_encoders_of_a_fusion_are_known_by_their_weights(tmp_path):
    """But for a fusion of an earlier version, which does not tell of them."""
    before = {"config": asdict(configure("shhs", preset="tiny"))}
    now = {**before, "encoders": {"eeg": "abc", "ecg": "def"}}
    for record in (before, now):
        require_same_run(tmp_path, MULTIMODAL, record, now, configure("shhs", preset="tiny"))
    other = {**before, "encoders": {"eeg": "abc", "ecg": "abd"}}
    with pytest.raises(InputError, match="encoders ecg def, not abd"):
        require_same_run(tmp_path, MULTIMODAL, now, other, configure("shhs", preset="tiny"))


def test_a_channel_more_or_less_is_noticed(tmp_path):
    config = configure("shhs", preset="tiny")
    one = {"config": asdict(config), "channels": {"eeg": "EEG_C4"}}
    two = {**one, "channels": {"eeg": "EEG_C4", "eeg2": "EEG_C3"}}
    for before, now in ((one, two), (two, one)):
        require_same_run(tmp_path, UNIMODAL, now, now, config)
        with pytest.raises(InputError, match="was trained with channels"):
            require_same_run(tmp_path, UNIMODAL, before, now, config)


@pytest.mark.parametrize(("tcm", "same"), [("mamba2", True), ("mamba", True), ("lstm", False), ("mha", False)])
def test_modules_that_have_more_layers_than_in_version_1_are_others(tmp_path, tcm, same):
    config = configure("shhs", preset="tiny")
    before = {"config": asdict(config), "tcm": tcm}
    now = {**before, "tcm_layers": TCMS[tcm]}
    require_same_run(tmp_path, FINE_TUNING, now, now, config)
    if same:
        require_same_run(tmp_path, FINE_TUNING, before, now, config)
    else:
        with pytest.raises(InputError, match=rf"was trained with tcm_layers \['{tcm}'\], not \["):
            require_same_run(tmp_path, FINE_TUNING, before, now, config)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("unimodal/eeg", (42, 3, 117, 110, 105, 109, 111, 100, 97, 108, 47, 101, 101, 103)),
        ("linear_probing/apnea", (42, 3, *b"linear_probing/apnea")),
    ],
)
def test_a_step_has_its_own_draws(step, expected):
    assert seed_of(42, 3, step) == expected
