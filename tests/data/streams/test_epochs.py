"""The stream of single epochs: every epoch once, mixed, repeatable."""

import numpy as np
import pytest

from data.databases import ChannelSpec
from data.recipe import Recipe
from data.streams.epochs import epochs
from data.streams.windows import reading
from data.terms import InputError

RECIPE = Recipe({"eeg": ChannelSpec("C4"), "emg": ChannelSpec("EMG")})


@pytest.fixture
def nights(tmp_path):
    """Five nights of 7 to 11 epochs; the first sample of an epoch tells night, epoch and channel."""
    paths = []
    for night in range(5):
        x = np.random.default_rng(night).normal(0, 20, (7 + night, 3, 3000)).astype("float32")
        x[:, :, 0] = 1000 * night + 10 * np.arange(len(x))[:, None] + np.arange(3)
        path = tmp_path / f"night{night}.npz"
        np.savez(path, x=x, y=np.zeros(len(x), int), ch_names=["EMG", "C4", "ECG"])
        paths.append(path)
    return paths


def first_samples(nights, seed, batch=5):
    with reading():
        batches = [{n: v.numpy()[:, 0] for n, v in b.items()} for b in epochs(nights, RECIPE, batch, seed)]
    return {name: np.concatenate([b[name] for b in batches]) for name in RECIPE.channels}


def test_every_epoch_once_with_its_channels(nights):
    found = first_samples(nights, (1, 2))
    assert sorted(found["eeg"]) == sorted(1000 * n + 10 * e + 1 for n in range(5) for e in range(7 + n))
    assert np.array_equal(found["eeg"] - 1, found["emg"])


def test_channels_of_one_modality_may_be_examples_of_their_own(nights):
    recipe = Recipe({"eeg": ChannelSpec("C4"), "eeg2": ChannelSpec("ECG")})
    with reading():
        batches = [batch["eeg"].numpy()[:, 0] for batch in epochs(nights, recipe, 5, (1, 2), apart=True)]
    expected = sorted(1000 * n + 10 * e + channel for n in range(5) for e in range(7 + n) for channel in (1, 2))
    assert sorted(np.concatenate(batches)) == expected


def test_a_last_batch_not_full_is_left_out(nights):
    assert len(first_samples(nights, (1,), batch=20)["eeg"]) == 40


def test_the_seed_settles_the_order(nights):
    first, again, other = (first_samples(nights, seed)["eeg"] for seed in ((1, 0), (1, 0), (1, 1)))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_nights_are_mixed(nights):
    """No batch is of one night."""
    assert all(len(set(batch // 1000)) > 1 for batch in first_samples(nights, (3,))["eeg"].reshape(-1, 5))


def test_a_bad_night_is_told(nights):
    nights[3].write_bytes(b"no night")
    with pytest.raises(InputError, match=r"night3\.npz"):
        first_samples(nights, (1,))
