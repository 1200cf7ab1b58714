"""Synthetic nights: whole polysomnographies with known stages and breathing events, to try and test the toolkit.

The signals follow textbook descriptions of each stage (Iber et al., The AASM Manual for the Scoring of Sleep, 2007):
alpha in quiet wakefulness; theta, vertex waves and slow eye movements in N1; spindles and K-complexes in N2; slow
waves in N3; sawtooth waves, rapid eye movements and muscle atonia in REM. They also have what makes real nights hard to
stage: sleepers and amplifiers differ, stages mix within an epoch, and movements and sweat disturb the signals. They do
not replace real data.
"""

import glob
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from scipy import ndimage, signal
from tqdm import tqdm

from data.databases import Database
from data.nights.files import write_arrays
from data.scorings.scoring import N1, N2, N3, REM, Event, Scoring, W
from data.store import read_json
from data.terms import EPOCH_SAMPLES, EPOCH_SECONDS, EVENTS, SAMPLING_RATE, STAGES, InputError
from data.writing import write_json, written_aside

if TYPE_CHECKING:
    from config import SyntheticConfig

CHANNELS = ("EEG C4-M1", "EOG L", "EOG R", "EMG", "ECG", "Airflow", "SpO2")
"""All in µV except airflow (arbitrary units) and SpO2 (%)."""

YOUNG = 30.0
"""The age, in years, of the sleepers that the amplitudes and rates below describe."""

Rates = tuple[float, float, float, float, float]
"""Events per minute in W, N1, N2, N3 and REM."""

# Amplitude (µV, RMS) of each rhythm in W, N1, N2, N3, REM.
RHYTHMS = {
    "slow": ((0.5, 1.8), (3.0, 4.0, 9.0, 38.0, 4.0)),
    "delta": ((1.8, 4.0), (3.5, 5.0, 9.0, 16.0, 5.0)),
    "theta": ((4.0, 7.5), (3.5, 9.0, 6.0, 5.0, 5.5)),
    "beta": ((16.0, 30.0), (4.2, 2.6, 1.8, 1.2, 2.8)),
}
ALPHA = (13.0, 5.0, 1.5, 1.0, 1.6)
EMG_TONE = (16.0, 9.0, 6.5, 5.5, 1.8)
BREATHS_PER_SECOND = (0.27, 0.25, 0.24, 0.23, 0.27)
HEART_RATE = (68.0, 63.0, 60.0, 58.0, 66.0)
EVENTS_PER_EPOCH = (0.0, 0.8, 1.0, 0.4, 1.2)
"""Breathing events in W, N1, N2, N3 and REM, relative to the subject's own rate."""
HEARTBEAT = ((90, 0.08, 0.025), (-110, 0.17, 0.01), (1000, 0.2, 0.012), (-220, 0.23, 0.012), (230, 0.43, 0.05))
"""Height (µV), centre and width (s) of the waves P, Q, R, S and T."""
INTRUSIONS = {N1: ((W, 0.25), (N2, 0.1)), W: ((N1, 0.08),), N2: ((N1, 0.08),), N3: ((N2, 0.25),), REM: ((N1, 0.08),)}
"""Other stages that appear for some seconds within a stage's epochs, and their shares; a scorer notes the stage that
prevails."""
DESATURATION, DELAY = EVENTS[-1], 15 * SAMPLING_RATE
"""The event that follows an apnea or hypopnea, and how many samples later."""


def ensure_nights(folder: Path, spec: Database, config: "SyntheticConfig") -> None:
    """Write the nights of ``spec.subjects`` that ``folder`` lacks; InputError if its nights have other settings."""
    if glob.has_magic(spec.night_patterns[0]):
        raise InputError(
            f"--set night_patterns={spec.night_patterns}: synthetic nights cannot be written to a name with wildcards: "
            "leave the wildcards out."
        )
    record = folder / "settings.json"
    settings = asdict(config)
    made = read_json(record) if record.exists() else settings
    if made != settings:
        raise InputError(
            f"{folder} holds synthetic nights with other settings, {made}: remove it, or name another folder."
        )
    paths = {subject: folder / spec.night_patterns[0].format(subject=subject) for subject in spec.subjects}
    todo = {subject: path for subject, path in paths.items() if not path.exists()}
    if not todo:
        return
    write_json(record, settings)
    for subject, path in tqdm(todo.items(), desc=f"writing synthetic nights to {folder}", unit="night"):
        write_arrays(path, make_night(subject, config))


def make_night(subject: int, config: "SyntheticConfig", age: float = YOUNG) -> dict[str, np.ndarray]:
    """The arrays of one subject's night file, the same for the same subject, configuration and ``age`` in years.

    ``x`` is float32 (epochs, channels, 3000), ``y`` int32 (epochs,), ``events`` 0/1 (epochs, 5).
    """
    rng = np.random.default_rng((config.synthetic_seed, subject))
    epochs = max(20, round(config.hours * rng.uniform(0.94, 1.06) * 3600 / EPOCH_SECONDS))
    true = _hypnogram(rng, epochs, age)
    # The body changes its state within seconds, not at the borders of epochs.
    stage = np.roll(np.repeat(true, EPOCH_SAMPLES), int(rng.integers(-5, 6)) * SAMPLING_RATE)
    stage = _mixed(rng, stage)
    breathing = _breathing_events(rng, true)
    left, right, gaze = _eyes(rng, stage)
    airflow, saturation = _breathing(rng, stage, breathing)
    eeg = rng.uniform(0.87, 1.15) * _brain(rng, stage, age) + 0.12 * gaze
    restless = _restless(rng, stage)
    electric = (eeg, left, right, _muscle(rng, stage), _heart(rng, stage))
    channels = (*(_recorded(rng, channel, restless) for channel in electric), airflow, saturation)
    x = np.stack([channel.reshape(epochs, EPOCH_SAMPLES) for channel in channels], axis=1).astype(np.float32)
    breathing += [(DESATURATION, start + DELAY, end + DELAY) for _, start, end in breathing]
    events = tuple(Event(name, a / SAMPLING_RATE, (b - a) / SAMPLING_RATE) for name, a, b in breathing)
    counts = Counter(event.name for event in events)
    return {
        "x": x,
        "ch_names": np.array(CHANNELS),
        "y": _as_scored(rng, true).astype(np.int32),
        "events": Scoring(true, 0.0, events, EVENTS).event_labels(epochs),
        "event_names": np.array(EVENTS),
        "fs": np.float64(SAMPLING_RATE),
        "about": np.array(json.dumps({"events_in_sleep": {name: counts[name] for name in EVENTS}})),
    }


def write_recording(path: Path, subject: int, config: "SyntheticConfig") -> Path:
    """Write a subject's night as an EDF recording and beside it its scoring, a stage per line; the scoring's path."""
    import edfio

    night = make_night(subject, config)
    units = {"Airflow": "", "SpO2": "%"}
    edf = edfio.Edf(
        [
            edfio.EdfSignal(samples.astype(float), SAMPLING_RATE, label=name, physical_dimension=units.get(name, "uV"))
            for name, samples in zip(CHANNELS, night["x"].swapaxes(0, 1).reshape(len(CHANNELS), -1), strict=True)
        ]
    )
    scoring = path.with_suffix(".txt")
    with written_aside(path) as aside:
        edf.write(aside)
    with written_aside(scoring) as aside:
        aside.write_text("\n".join(STAGES[stage] for stage in night["y"]))
    return scoring


def _from_young(age: float, at_80: float) -> float:
    """A factor that is 1 for young sleepers and ``at_80`` for those of 80 years."""
    return float(np.interp(age, (YOUNG, 80), (1, at_80)))


def _hypnogram(rng: Generator, epochs: int, age: float) -> np.ndarray:
    """Stages (epochs,): sleep onset, cycles of about 90 minutes with N3 early and REM late, awakenings, waking up.

    With age, N3 becomes less and awakenings become more (Ohayon et al., Sleep 27, 2004).
    """
    cycle_epochs = 90 * 60 // EPOCH_SECONDS
    # The shares below describe a full night; a short one runs through the same cycles faster.
    scale = min(1.0, epochs / (4 * cycle_epochs))

    def bout(minutes: float) -> int:
        return max(1, round(scale * minutes * 60 / EPOCH_SECONDS * rng.uniform(0.7, 1.3)))

    drawn = [W] * bout(22)
    cycle = 0
    while len(drawn) < epochs:
        drawn += [N1] * bout(5) + [N2] * bout(11)
        drawn += [N3] * bout(_from_young(age, 0.4) * max(8.0, 34 - 8 * cycle)) + [N2] * bout(15)
        if rng.random() < 0.6:
            drawn += [W] * bout(3) + [N1] * bout(3)
        drawn += [N2] * bout(7) + [REM] * bout(min(32.0, 11 + 7 * cycle))
        drawn += [W] * bout(5 if rng.random() < 0.5 else 2) + [N1] * bout(2)
        cycle += 1
    stages = np.array(drawn[:epochs])
    stages[-bout(14) :] = W
    # Brief awakenings.
    for start in np.flatnonzero(rng.random(epochs) < 0.012 * _from_young(age, 3)):
        stages[start : start + 1 + rng.integers(0, 3)] = W
    return stages


def _as_scored(rng: Generator, true: np.ndarray) -> np.ndarray:
    """What a scorer would write: one transition in three is placed an epoch too early or too late."""
    scored = true.copy()
    for edge in np.flatnonzero(np.diff(true)) + 1:
        if rng.random() < 1 / 3:
            if rng.random() < 0.5:
                scored[edge] = true[edge - 1]
            else:
                scored[edge - 1] = true[edge]
    return scored


def _mixed(rng: Generator, stage: np.ndarray) -> np.ndarray:
    """The stage of each sample, interrupted by other stages for 4 s at a time."""
    pieces = stage[:: 4 * SAMPLING_RATE].copy()
    drawn = rng.random(len(pieces))
    for own, others in INTRUSIONS.items():
        here, begin = stage[:: 4 * SAMPLING_RATE] == own, 0.0
        for other, share in others:
            pieces[here & (begin <= drawn) & (drawn < begin + share)] = other
            begin += share
    return np.repeat(pieces, 4 * SAMPLING_RATE)[: len(stage)]


def _restless(rng: Generator, stage: np.ndarray) -> np.ndarray:
    """How strongly the body moves at each sample, 0 to 1: some seconds, about ten times an hour, most when awake."""
    moved = np.zeros(len(stage))
    rates = (0.5, 0.25, 0.12, 0.05, 0.12)
    _scatter(moved, rng, stage, rates, lambda: np.hanning(rng.integers(3, 25) * SAMPLING_RATE))
    return moved.clip(0, 1)


def _recorded(rng: Generator, channel: np.ndarray, restless: np.ndarray) -> np.ndarray:
    """A channel as an amplifier records it: its gain and noise, sweat's slow drift, and the movements of the body."""
    samples = len(channel)
    sweat = rng.uniform(0, 15) * (_drift(rng, samples, 0.6) - 1).clip(0, 2) * _rhythm(rng, samples, 0.15, 0.5)
    movement = rng.uniform(30, 80) * (_rhythm(rng, samples, 0.3, 3) + 0.4 * _rhythm(rng, samples, 10, 45))
    noise = rng.uniform(0.5, 2) * rng.standard_normal(samples)
    return rng.lognormal(0, 0.1) * (channel + sweat + restless * movement + noise)


def _rhythm(rng: Generator, samples: int, low: float, high: float) -> np.ndarray:
    """Band-limited noise of unit variance, waxing and waning as noise does."""
    band = signal.butter(2, (low, high), "bandpass", fs=SAMPLING_RATE, output="sos")
    noise = signal.sosfilt(band, rng.standard_normal(samples, dtype=np.float32))
    return noise / noise.std()


def _by_stage(stage: np.ndarray, values: tuple[float, ...]) -> np.ndarray:
    """Each stage's value along the night, changing within about 3 s."""
    return ndimage.uniform_filter1d(np.asarray(values)[stage], 3 * SAMPLING_RATE)


def _drift(rng: Generator, samples: int, spread: float) -> np.ndarray:
    """A positive factor around 1 that changes slowly, over some minutes."""
    knots = np.exp(spread * rng.standard_normal(samples // (60 * SAMPLING_RATE) + 2))
    return np.interp(np.arange(samples), np.arange(len(knots)) * 60 * SAMPLING_RATE, knots)


def _add(track: np.ndarray, starts: np.ndarray, shapes: list[np.ndarray]) -> None:
    """Add each shape at its start, cut at the end of the night."""
    for start, shape in zip(starts, shapes, strict=True):
        piece = track[start : start + len(shape)]
        piece += shape[: len(piece)]


def _starts(rng: Generator, stage: np.ndarray, per_minute: Rates) -> np.ndarray:
    """Random sample positions, ``per_minute`` of them in each stage."""
    chance = np.asarray(per_minute) / (60 * SAMPLING_RATE)
    return np.flatnonzero(rng.random(len(stage), dtype=np.float32) < chance[stage])


def _scatter(
    track: np.ndarray, rng: Generator, stage: np.ndarray, per_minute: Rates, draw: Callable[[], np.ndarray]
) -> None:
    """Add the shapes that ``draw`` draws at random positions, ``per_minute`` of them in each stage."""
    starts = _starts(rng, stage, per_minute)
    _add(track, starts, [draw() for _ in starts])


def _brain(rng: Generator, stage: np.ndarray, age: float) -> np.ndarray:
    """EEG in µV. With age, slow waves and spindles become smaller (Carrier et al., Psychophysiology 38, 2001)."""
    samples = len(stage)
    fade = 1 / np.fft.rfftfreq(samples, 1 / SAMPLING_RATE).clip(0.3) ** rng.uniform(0.35, 0.75)
    background = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * fade, samples)
    eeg = 4.5 * background / background.std()
    for name, ((low, high), amplitudes) in RHYTHMS.items():
        own = rng.lognormal(0, 0.15) * _drift(rng, samples, 0.2)
        own *= _from_young(age, 0.65) if name in ("slow", "delta") else 1
        eeg += own * _by_stage(stage, amplitudes) * _rhythm(rng, samples, low, high)
    peak = rng.uniform(8.7, 11.0)
    own = rng.lognormal(0, 0.3) * _drift(rng, samples, 0.35)
    eeg += own * _by_stage(stage, ALPHA) * _rhythm(rng, samples, peak - 0.7, peak + 0.7)
    spindle_rate = rng.uniform(12.3, 14.0)
    starts = _starts(rng, stage, (0.0, 0.2, 4.5, 1.2, 0.0))
    lengths = rng.integers(SAMPLING_RATE // 2, 3 * SAMPLING_RATE // 2, len(starts))
    tone = np.sin(2 * np.pi * spindle_rate * np.arange(3 * SAMPLING_RATE // 2) / SAMPLING_RATE)
    height = _from_young(age, 0.6)
    _add(eeg, starts, [height * rng.uniform(14, 30) * np.hanning(n) * tone[:n] for n in lengths])
    time = np.arange(SAMPLING_RATE) / SAMPLING_RATE
    complex_shape = -np.exp(-(((time - 0.25) / 0.09) ** 2)) + 0.6 * np.exp(-(((time - 0.6) / 0.16) ** 2))
    _scatter(eeg, rng, stage, (0.0, 0.05, 1.6, 0.3, 0.0), lambda: rng.uniform(70, 130) * complex_shape)
    samples = 4 * SAMPLING_RATE
    sawtooth = signal.sawtooth(2 * np.pi * 2.7 * np.arange(samples) / SAMPLING_RATE, 0.85) * np.hanning(samples)
    _scatter(eeg, rng, stage, (0.0, 0.0, 0.0, 0.0, 3.0), lambda: rng.uniform(18, 32) * sawtooth)
    vertex_wave = -np.exp(-(((time - 0.2) / 0.05) ** 2))
    _scatter(eeg, rng, stage, (0.0, 5.0, 1.0, 0.0, 0.0), lambda: rng.uniform(50, 100) * vertex_wave)
    return eeg


def _eyes(rng: Generator, stage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left and right EOG, and the gaze that both pick up with opposite sign, in µV."""
    samples = len(stage)
    gaze = _by_stage(stage, (8.0, 32.0, 3.0, 2.0, 3.0)) * _rhythm(rng, samples, 0.15, 0.45)
    ramp = np.concatenate([np.linspace(0, 1, 6), np.exp(-np.arange(120) / 50)])
    _scatter(gaze, rng, stage, (6.0, 0.3, 0.0, 0.0, 13.0), lambda: rng.choice((-1, 1)) * rng.uniform(50, 130) * ramp)
    blinks = np.zeros(samples)
    _scatter(blinks, rng, stage, (9.0, 0.2, 0.0, 0.0, 0.0), lambda: rng.uniform(60, 140) * np.hanning(30))
    left, right = (
        sign * gaze
        + blinks
        + 4 * _rhythm(rng, samples, 0.5, 30)
        + _by_stage(stage, (1.0, 2.0, 4.0, 14.0, 2.0)) * _rhythm(rng, samples, 0.5, 2)
        for sign in (1, -1)
    )
    return left, right, gaze + blinks


def _muscle(rng: Generator, stage: np.ndarray) -> np.ndarray:
    """Chin EMG in µV."""
    samples = len(stage)
    tone = _by_stage(stage, EMG_TONE) * _drift(rng, samples, 0.25) * rng.uniform(0.7, 1.4)
    twitches = np.ones(samples)
    rates = (2.0, 0.5, 0.2, 0.1, 1.5)
    _scatter(twitches, rng, stage, rates, lambda: rng.uniform(1, 4) * np.hanning(rng.integers(20, 200)))
    return tone * twitches * _rhythm(rng, samples, 18, 48) + 0.6 * rng.standard_normal(samples)


def _heart(rng: Generator, stage: np.ndarray) -> np.ndarray:
    """ECG in µV."""
    samples = len(stage)
    rate = _by_stage(stage, HEART_RATE) * rng.uniform(0.85, 1.15) * _drift(rng, samples, 0.04) / 60
    beats = np.flatnonzero(np.diff(np.floor(np.cumsum(rate) / SAMPLING_RATE)))
    time = np.arange(60) / SAMPLING_RATE
    beat = sum(height * np.exp(-(((time - centre) / width) ** 2)) for height, centre, width in HEARTBEAT)
    ecg = 20 * _rhythm(rng, samples, 0.1, 0.5) + 8 * rng.standard_normal(samples)
    _add(ecg, beats, [beat] * len(beats))
    return ecg


def _breathing_events(rng: Generator, true: np.ndarray) -> list[tuple[str, int, int]]:
    """(name, first sample, last sample + 1) of each apnea and hypopnea, in order, in sleep only."""
    per_hour = float(np.exp(rng.uniform(np.log(8), np.log(60))))
    kinds = rng.dirichlet((6, 1.5, 1.5, 9))
    chance = per_hour * EPOCH_SECONDS / 3600 * np.asarray(EVENTS_PER_EPOCH)
    events, free = [], 0
    for epoch, stage in enumerate(true):
        start = epoch * EPOCH_SAMPLES + int(rng.integers(EPOCH_SAMPLES))
        end = start + int(rng.uniform(11, 38) * SAMPLING_RATE)
        asleep = true[min(end // EPOCH_SAMPLES, len(true) - 1)] != W
        if rng.random() < chance[stage] and asleep and start > free and end < len(true) * EPOCH_SAMPLES:
            events.append((EVENTS[rng.choice(4, p=kinds)], start, end))
            free = end + 12 * SAMPLING_RATE
    return events


def _breathing(rng: Generator, stage: np.ndarray, events: list[tuple[str, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Airflow (arbitrary units) and oxygen saturation (%)."""
    samples = len(stage)
    depth = _drift(rng, samples, 0.15)
    saturation = 96.5 + 0.4 * _rhythm(rng, samples, 0.01, 0.03)
    for name, start, end in events:
        depth[start:end] *= rng.uniform(0.3, 0.6) if name == "Hypopnea" else rng.uniform(0.0, 0.07)
        depth[end : end + 8 * SAMPLING_RATE] *= 1.5
        dip = np.hanning(end - start) * rng.uniform(3.2, 7.0)
        _add(saturation, np.array([start + DELAY]), [-dip])
    depth = ndimage.uniform_filter1d(depth, SAMPLING_RATE)
    rate = _by_stage(stage, BREATHS_PER_SECOND) * rng.uniform(0.85, 1.15) * _drift(rng, samples, 0.08)
    phase = 2 * np.pi * np.cumsum(rate) / SAMPLING_RATE
    airflow = 100 * depth * (np.sin(phase) + 0.25 * np.sin(2 * phase)) + 4 * rng.standard_normal(samples)
    return airflow, saturation.clip(50, 100)
