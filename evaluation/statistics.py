"""The figures of a sleep laboratory's report, computed from the stages of a night.

Terms and definitions: Berry et al., *The AASM Manual for the Scoring of Sleep and Associated Events*, version 3 (2023).
Where the manual leaves a choice, YASA's is followed (Vallat & Walker, eLife 10, 2021). Sleep cycles: Feinberg & Floyd,
Psychophysiology 16 (1979) 283-291.
"""

from typing import Any

import numpy as np

from data.recordings.quality import stretches
from data.terms import EPOCH_SECONDS, STAGES, UNSCORED
from evaluation.stages import as_json, transitions

MINUTE = EPOCH_SECONDS / 60
"""Length of an epoch in minutes."""
REM = STAGES.index("REM")
LEAST_NREM, LEAST_REM = 30, 10
"""The least epochs of NREM in a sleep cycle (15 min) and of REM at the end of every cycle except the first (5 min)."""

FIGURES = {
    "TIB": ("time in bed, from lights off to lights on", "min"),
    "TST": ("total sleep time", "min"),
    "SPT": ("sleep period, from the first to the last sleep", "min"),
    "SE": ("sleep efficiency, TST as a share of TIB", "%"),
    "SME": ("sleep maintenance efficiency, TST as a share of SPT", "%"),
    "SOL": ("sleep onset latency, from lights off", "min"),
    "N1_latency": ("from lights off to the first N1", "min"),
    "N2_latency": ("from lights off to the first N2", "min"),
    "N3_latency": ("from lights off to the first N3", "min"),
    "REM_latency": ("from sleep onset to the first REM", "min"),
    "WASO": ("wake after sleep onset, within the sleep period", "min"),
    "awakenings": ("changes from sleep to wake, within the sleep period", ""),
    "shifts_per_hour": ("changes of stage within the sleep period, per hour of sleep", "/h"),
    "cycles": ("sleep cycles, NREM of 15 min or more and the REM after it", ""),
    "unscored": ("not scored", "min"),
}
"""The figures of :func:`statistics` by name: what each is, and its unit."""


LATENCIES = {"SOL": (1, 2, 3, 4)} | {f"{stage}_latency": (code,) for code, stage in enumerate(STAGES) if code}
"""The latencies, and the stages at the first of which each ends, as positions in STAGES."""


def statistics(stages: np.ndarray, lights: tuple[int, int] | None = None) -> dict[str, Any]:
    """The figures :data:`FIGURES`, and those of each stage, of a night's ``stages`` int (epochs,), -1 where unscored.

    ``minutes`` are those of each stage, ``share_of_TIB`` is each stage's percentage of TIB, and ``share`` its
    percentage of TST; ``thirds`` are the minutes of each stage in each third of the sleep period.
    ``transitions[a][b]`` counts the epochs of stage a followed by b. A figure without a meaning is None.

    WASO ends with the last sleep, as in YASA; the AASM also counts the wake after it. Awakenings are epochs of sleep
    followed by wake, as in YASA's fragmentation index, without the final one. A third whose end falls within an epoch
    includes that epoch.

    Args:
        stages: the stages of the whole recording.
        lights: the first epoch of the time in bed, and the one after its last; the whole recording if None.
    """
    stages = stages[slice(*lights)] if lights else stages
    asleep = np.flatnonzero(stages > 0)
    tib, tst = len(stages), len(asleep)
    # NaN stands for figures that have no meaning without sleep.
    onset, period = (asleep[0], stages[asleep[0] : asleep[-1] + 1]) if tst else (np.nan, stages[:0])
    followed = transitions(period)
    shifts = followed.sum() - np.trace(followed)
    first = {stage: np.flatnonzero(stages == number)[:1] for number, stage in enumerate(STAGES)}
    latencies = {f"{stage}_latency": float(first[stage][0]) if len(first[stage]) else np.nan for stage in STAGES[1:]}
    counts = _counts(stages)
    minutes = {
        "TIB": tib,
        "TST": tst,
        "SPT": len(period),
        "SOL": onset,
        **latencies,
        "REM_latency": latencies["REM_latency"] - onset,
        "WASO": np.count_nonzero(period == 0) if tst else np.nan,
        "unscored": np.count_nonzero(stages == UNSCORED),
    }
    found = {name: epochs * MINUTE for name, epochs in minutes.items()} | {
        "SE": 100 * tst / tib,
        "SME": 100 * tst / len(period) if tst else np.nan,
        "awakenings": followed[1:, 0].sum() if tst else np.nan,
        "shifts_per_hour": 60 * shifts / (tst * MINUTE) if tst else np.nan,
        "cycles": len(cycles(stages)),
    }
    return {
        **as_json({name: found[name] for name in FIGURES}),
        "minutes": as_json({stage: n * MINUTE for stage, n in counts.items()}),
        "share": as_json({stage: 100 * counts[stage] / (tst or np.nan) for stage in STAGES[1:]}),
        "share_of_TIB": as_json({stage: 100 * n / tib for stage, n in counts.items()}),
        "thirds": [
            as_json({stage: n * MINUTE for stage, n in _counts(part).items()}) for part in np.array_split(period, 3)
        ],
        "transitions": {
            stage: dict(zip(STAGES, row, strict=True))
            for stage, row in zip(STAGES, transitions(stages).tolist(), strict=True)
        },
    }


def columns(figures: dict[str, Any]) -> dict[str, float | None]:
    """What :func:`statistics` gives, except transitions, as one row of a table of nights, by its columns."""
    thirds = figures.get("thirds", ({}, {}, {}))
    return {
        **{name: figures.get(name) for name in FIGURES},
        **{f"{stage}_min": figures.get("minutes", {}).get(stage) for stage in STAGES},
        **{f"{stage}_of_TST": figures.get("share", {}).get(stage) for stage in STAGES[1:]},
        **{f"{stage}_of_TIB": figures.get("share_of_TIB", {}).get(stage) for stage in STAGES},
        **{f"{stage}_min_third_{n}": third.get(stage) for n, third in enumerate(thirds, 1) for stage in STAGES},
    }


def cycles(stages: np.ndarray) -> list[tuple[int, int]]:
    """The sleep cycles, each from its first epoch of NREM to the one after its last epoch of REM (or NREM).

    A cycle begins with NREM, of which it has at least 15 min, and ends with at least 5 min of REM; in the first cycle,
    any REM is enough. REM that is interrupted by less than 15 min of other stages counts as one. The last cycle needs
    no REM. Wake and unscored epochs in between do not count towards these minutes.
    """
    nrem = (stages > 0) & (stages != REM)
    gap = [
        (first, end)
        for first, end in stretches(stages != REM)
        if first and end < len(stages) and end - first < LEAST_NREM
    ]
    joined = stages == REM
    for first, end in gap:
        joined[first:end] = True
    found: list[tuple[int, int]] = []
    begin = 0
    for first, end in stretches(joined):
        enough = np.count_nonzero(stages[first:end] == REM) >= (LEAST_REM if found else 1)
        before = np.flatnonzero(nrem[begin:first])
        if enough and len(before) >= LEAST_NREM:
            found.append((begin + int(before[0]), end))
        # Too little REM leaves the cycle open; REM without NREM before it, such as at sleep onset, makes no cycle.
        if enough:
            begin = end
    rest = np.flatnonzero(nrem[begin:])
    if len(rest) >= LEAST_NREM:
        found.append((begin + int(rest[0]), begin + int(rest[-1]) + 1))
    return found


def _counts(stages: np.ndarray) -> dict[str, int]:
    """The epochs of each stage."""
    return {stage: int(np.count_nonzero(stages == number)) for number, stage in enumerate(STAGES)}
