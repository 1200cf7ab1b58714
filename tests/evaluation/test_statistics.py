"""The figures of a night against those worked out by hand on short nights."""

import re

import numpy as np
import pytest

from data.terms import STAGES
from evaluation.statistics import FIGURES, columns, cycles, statistics

CODES = "W123R"


def stages(text: str) -> np.ndarray:
    """Stages of a text such as ``W4 1x2 ?``: a code W, 1, 2, 3, R or ?, and after an x how often."""
    runs = [(code, int(times or 1)) for code, times in re.findall(r"([W123R?])(?:x(\d+))?", text)]
    return np.array([CODES.find(code) for code, times in runs for _ in range(times)], np.int32)


def test_latencies_awakenings_and_shifts():
    #  0        4   6    12   14   18   20   26   30
    night = stages("Wx4 1x2 2x6 Wx2 3x4 ?x2 Rx6 Wx4")
    found = statistics(night)
    assert {name: found[name] for name in ("N1_latency", "N2_latency", "N3_latency", "REM_latency")} == {
        "N1_latency": 2.0,
        "N2_latency": 3.0,
        "N3_latency": 7.0,
        "REM_latency": 8.0,
    }
    assert found["awakenings"] == 1
    # N1 to N2, to wake, to N3; what is not scored lies before REM. Nine minutes of sleep.
    assert found["shifts_per_hour"] == pytest.approx(3 / (9 / 60))
    assert found["share_of_TIB"] == pytest.approx(
        {"W": 100 / 3, "N1": 20 / 3, "N2": 20, "N3": 40 / 3, "REM": 20}, abs=1e-9
    )


def test_thirds_of_the_sleep_period():
    #            12 epochs of sleep period, four in each third
    found = statistics(stages("Wx5 2x3 3x1 3x2 Wx2 Rx3 2x1 Wx7"))
    assert found["thirds"] == [
        {"W": 0, "N1": 0, "N2": 1.5, "N3": 0.5, "REM": 0},
        {"W": 1, "N1": 0, "N2": 0, "N3": 1, "REM": 0},
        {"W": 0, "N1": 0, "N2": 0.5, "N3": 0, "REM": 1.5},
    ]


def test_lights():
    night = stages("1x4 Wx6 2x20 Wx6 1x4")
    found = statistics(night, (4, 34))
    assert {name: found[name] for name in ("TIB", "TST", "SOL", "SE", "N1_latency", "WASO")} == {
        "TIB": 15,
        "TST": 10,
        "SOL": 3,
        "SE": pytest.approx(200 / 3),
        "N1_latency": None,
        "WASO": 0,
    }
    assert found["minutes"]["N1"] == 0 and found["transitions"]["N1"]["W"] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wx10 2x30 Rx1 Wx5", [(10, 41)]),
        # 14.5 min of NREM are too few, before REM as at the end.
        ("2x29 Rx20 2x29", []),
        # Only the first REM may be shorter than 5 min; the second leaves its cycle open.
        ("2x30 Rx2 2x30 Rx9 2x30", [(0, 32), (32, 101)]),
        ("2x30 Rx2 2x30 Rx10 2x30", [(0, 32), (32, 72), (72, 102)]),
        # Interrupted by 14.5 min it is one REM period, by 15 min two.
        ("2x30 Rx10 Wx29 Rx10 3x30 Rx10", [(0, 79), (79, 119)]),
        ("2x30 Rx10 2x30 Rx10", [(0, 40), (40, 80)]),
        # REM at sleep onset makes no cycle; wake and unscored epochs do not count to NREM.
        ("Rx20 2x30 Rx10", [(20, 60)]),
        ("2x15 Wx40 1x10 ?x5 3x5 Rx2 Wx3", [(0, 77)]),
        ("3x30", [(0, 30)]),
        ("Wx60", []),
        ("Rx60", []),
    ],
)
def test_sleep_cycles(text, expected):
    night = stages(text)
    assert cycles(night) == expected
    assert statistics(night)["cycles"] == len(expected)


@pytest.mark.parametrize("text", ["Wx4", "?x4", "2", "Wx3 R", "1 2 3"])
def test_columns_are_the_same_of_any_night(text):
    given = columns(statistics(stages(text)))
    assert list(given) == list(columns({}))
    assert set(FIGURES) < set(given) and len(given) == len(FIGURES) + 5 + 4 + 5 + 3 * 5
    assert given["REM_min"] == 0.5 * (text[-1] == "R")
    assert all(value is None or isinstance(value, float) for value in given.values())
    assert sum(given[f"{stage}_min_third_{n}"] for stage in STAGES for n in (1, 2, 3)) == given["SPT"]
