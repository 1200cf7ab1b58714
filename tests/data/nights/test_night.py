"""Night files as users have them, and every way in which they can be wrong."""

import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.nights.night import Night, read_night
from data.terms import UNSCORED, InputError

X = np.random.default_rng(0).normal(0, 20, (6, 3000)).astype("float32")


@pytest.mark.parametrize(
    "x", [X, X[..., None], X[:, None], X.astype("float64"), X.astype("int16")], ids=lambda x: f"{x.shape}{x.dtype}"
)
def test_accepted_forms_read_alike(tmp_path, make_night, x):
    night = read_night(make_night(tmp_path / "a.npz", 6, x=x), ("C3",))
    assert night.signals.shape == (6, 1, 3000)
    assert night.signals.dtype == np.float32
    np.testing.assert_array_equal(night.signals[:, 0], x.reshape(6, 3000).astype("float32"))
    assert (night.name, night.channels) == ("a", ("C3",))


def test_sampling_rate_may_be_absent_and_foreign_keys_are_not_opened(tmp_path, make_night):
    path = make_night(tmp_path / "a.npz", 6, fs=None, header=np.array([{"a": object}], dtype=object))
    assert len(read_night(path, ("EEG",)).stages) == 6


def test_channels_are_picked_by_name(tmp_path, make_night):
    x = np.stack([X, X * 2, X * 3], axis=1)
    path = make_night(tmp_path / "a.npz", 6, x=x, ch_names=np.array(["A", "B", "C"]), y=np.array([0, 1, -1, 3, 4, 2]))
    night = read_night(path, ("C", "A"))
    np.testing.assert_array_equal(night.signals, x[:, [2, 0]])
    assert night.stages[2] == UNSCORED
    with pytest.raises(InputError, match="no channel 'D': choose among A, B, C"):
        read_night(path, ("D",))


def test_amplitude_minds_no_drift(tmp_path, make_night):
    drift = 300 + 50 * np.arange(6, dtype="float32")[:, None]
    night = read_night(make_night(tmp_path / "a.npz", 6, x=X + drift), ("EEG",))
    expected = np.median([np.median(np.abs(epoch - np.median(epoch))) for epoch in X])
    assert night.amplitude[0] == pytest.approx(expected, rel=1e-4)


def spoiled(**changes) -> np.ndarray:
    x = X.copy()
    for where, value in changes.items():
        x[int(where[1:])] = value
    return x


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"y": None}, "no array 'y'"),
        ({"x": None}, "no array 'x'"),
        ({"x": X[:, :2900]}, "epochs of 2900 samples"),
        ({"x": X[0]}, "shape (3000,)"),
        ({"x": np.stack([X, X], axis=1)}, "2 channels but no array ch_names"),
        ({"x": X[:, None], "ch_names": np.array(["A", "B"])}, "1 channels but 2 names"),
        ({"x": X[:0], "y": np.zeros(0, int)}, "no epochs"),
        ({"x": X.astype("complex64")}, "complex64"),
        ({"x": np.full((6, 3000), "a")}, "must hold numbers"),
        ({"x": X.astype(object)}, "pickled"),
        ({"y": np.array([0, 1, 2, 3, 4, None])}, "pickled"),
        ({"x": spoiled(e3=np.nan)}, "NaN or infinite values in 1 of 6 epochs, first in epoch 3"),
        ({"x": np.full((6, 3000), np.nan)}, "6 of 6 epochs"),
        ({"x": spoiled(e1=np.inf)}, "first in epoch 1"),
        ({"x": np.full((6, 3000), 7.0)}, "flat, 7 all night"),
        ({"y": np.array([0, 1, 2, 3, 5, 0])}, "epoch 4 is labelled 5"),
        ({"y": np.array([0, -1, 2, 3, 4, 0])}, "epoch 1 is labelled -1"),
        ({"y": np.array([0, 1.5, 2, 3, 4, 0])}, "epoch 1 is labelled 1.5"),
        ({"y": np.array([0, np.nan, 2, 3, 4, 0])}, "epoch 1 is labelled nan"),
        ({"y": np.array(list("WWWWWW"))}, "stages are numbers"),
        ({"y": np.zeros(5, int)}, "y has the shape (5,), but x has 6 epochs"),
        ({"fs": 128.0}, "128.0 Hz"),
        ({"fs": "fast"}, "fast Hz"),
        ({"x": X[:, None], "ch_names": np.array(["EEG"]), "y": np.full(6, -1)}, "none of its epochs is scored"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_content_is_one_sentence(tmp_path, make_night, changes, told):
    path = make_night(tmp_path / "night.npz", 6, **changes)
    with pytest.raises(InputError) as error:
        read_night(path, ("EEG",))
    assert told in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_at_any_point(tmp_path, make_night):
    whole = make_night(tmp_path / "whole.npz", 6).read_bytes()
    for size in [0, 1, 3, 10, 100, 5000, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_night(tmp_path / "cut.npz", ("EEG",))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_crash(tmp_path, make_night, data):
    path = tmp_path / "whole.npz"
    whole = bytearray((path if path.exists() else make_night(path, 6)).read_bytes())
    # The headers, not the samples, are where damage can mislead.
    places = st.one_of(st.integers(0, 300), st.integers(len(whole) - 700, len(whole) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        whole[place] = value
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(whole)
    try:
        read_night(damaged, ("EEG",))
    except InputError as error:
        assert "\n" not in str(error)


def test_other_files_are_not_nights(tmp_path):
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    for name in ("array", "text", "zip", "absent"):
        with pytest.raises(InputError):
            read_night(tmp_path / f"{name}.npz", ("EEG",))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="ordinary file"):
        read_night(tmp_path / "folder.npz", ("EEG",))


def test_events_are_read_by_name(tmp_path, make_night):
    events = np.eye(6, 2, dtype="int8")
    path = make_night(tmp_path / "night.npz", 6, events=events, event_names=["Hypopnea", "Central Apnea"])
    found = read_night(path, ("EEG",)).events
    assert found["Hypopnea"].tolist() == [True] + 5 * [False]
    assert found["Central Apnea"].tolist() == [False, True] + 4 * [False]


@pytest.mark.parametrize(
    ("events", "told"),
    [(np.zeros((5, 1)), r"shape \(5, 1\), but needs \(6, 1\)"), (np.full((6, 1), 2), "may hold only 0 and 1")],
)
def test_bad_events_are_told(tmp_path, make_night, events, told):
    path = make_night(tmp_path / "night.npz", 6, events=events, event_names=["Hypopnea"])
    with pytest.raises(InputError, match=told):
        read_night(path, ("EEG",))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("task", ["sleep_stage", "hypopnea"])
def test_wake_far_from_sleep_has_no_label_in_a_night_that_was_kept_whole(task, whole):
    """Two epochs of wake count on either side; the unscored one amid sleep never does."""
    stages = np.array([0, 0, 0, 1, 2, -1, 4, 0, -1, 0, 0], np.int32)
    events = {"Hypopnea": np.arange(11) % 2 == 1}
    about = {"settings": {"whole": True}} if whole else {}
    night = Night("name", np.zeros((11, 1, 3000), np.float32), ("EEG",), stages, events, about)
    expected = stages if task == "sleep_stage" else np.where(stages < 0, -1, events["Hypopnea"])
    far = np.isin(np.arange(11), (0, 9, 10)) if whole else np.zeros(11, bool)
    assert night.labels(task, wake_minutes=1).tolist() == np.where(far, -1, expected).tolist()
    assert night.labels(task, wake_minutes=1440).tolist() == expected.tolist()
    asleep = Night("name", night.signals, ("EEG",), np.zeros(11, np.int32), events, about)
    assert (asleep.labels(task, wake_minutes=0) >= 0).all()
