"""The stream of windows, put together again, is the nights; nothing is lost, doubled or mixed."""

import numpy as np
import pytest

from data.databases import ChannelSpec
from data.nights.night import read_night
from data.recipe import Recipe
from data.streams.windows import count_windows, reading, windows
from data.terms import InputError

EEG = Recipe({"eeg": ChannelSpec("EEG")})


@pytest.fixture
def nights(tmp_path, make_night):
    return [make_night(tmp_path / f"{n}.npz", epochs, seed=n) for n, epochs in enumerate((45, 20, 61, 7, 33))]


def test_windows_put_together_are_the_nights(nights):
    batches = [
        (inputs["signals"].numpy(), inputs["start"].numpy(), stages.numpy(), weights.numpy())
        for inputs, stages, weights in windows(nights, EEG, batch_nights=2, window_epochs=20)
    ]
    assert len(batches) == count_windows([45, 20, 61, 7, 33], 2, 20) == 3 + 4 + 2
    group = -1
    collected: dict[int, list] = {n: [] for n in range(5)}
    for signals, start, stages, weights in batches:
        assert start.all() or not start.any()
        group += int(start[0])
        assert signals.shape == (len(start), 20, 3000)
        for lane in range(len(start)):
            collected[2 * group + lane].append((signals[lane], stages[lane], weights[lane]))
    for number, path in enumerate(nights):
        night = read_night(path, ("EEG",))
        signals, stages, weights = (np.concatenate(parts) for parts in zip(*collected[number], strict=True))
        epochs = len(night.stages)
        np.testing.assert_array_equal(signals[:epochs], night.signals[:, 0])
        np.testing.assert_array_equal(stages[:epochs], night.stages)
        assert weights[:epochs].all()
        assert not weights[epochs:].any()
        assert not signals[epochs:].any()


def test_unscored_epochs_weigh_nothing(tmp_path, make_night):
    y = np.array([0, -1, 2, 3, 4])
    x = np.random.default_rng(0).normal(size=(5, 2, 3000))
    path = make_night(tmp_path / "a.npz", 5, x=x, y=y, ch_names=np.array(["A", "B"]))
    ((inputs, stages, weights),) = windows([path], Recipe({"eeg": ChannelSpec("B")}), 15, 20)
    np.testing.assert_array_equal(weights[0, :5], y >= 0)
    assert stages.numpy().min() == 0
    np.testing.assert_array_equal(inputs["signals"][0, :5], x[:, 1].astype("float32"))


def test_a_night_that_vanishes_is_told(nights):
    nights[3].unlink()
    with pytest.raises(InputError, match=r"3\.npz does not exist, or no longer exists: check its name\.$"), reading():
        list(windows(nights, EEG, 2, 20))
