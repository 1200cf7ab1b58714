"""Pictures of a staged night, drawn without pyplot: no window, no state shared with the user's own plots."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from data.recordings.quality import stretches
from data.terms import EPOCH_SECONDS, STAGES, UNSCORED

if TYPE_CHECKING:
    from evaluation.hypnogram import Hypnogram

COLOURS = {"W": "#d9a441", "N1": "#8fc1b5", "N2": "#4d8fbf", "N3": "#23426f", "REM": "#c2504d"}
"""Colours of the stages, which can be told apart in grey and by colour-blind people."""
FROM_TOP = ("W", "REM", "N1", "N2", "N3")
"""The stages of a hypnogram from top to bottom, as the AASM draws it."""
HOURS = EPOCH_SECONDS / 3600
"""Length of an epoch in hours."""
GREY = "#555555"
MARGINS = {"left": 0.9, "right": 1.0, "top": 0.1, "bottom": 0.5}
"""Margins in inches: the same in all pictures, so that their time axes are aligned."""

Draw = Callable[[Axes, "Hypnogram"], None]


def picture(night: "Hypnogram", drawn: Sequence[Draw], width: float, height: float, title: str = "") -> Figure:
    """A figure of ``width`` by ``height`` inches, in which each function of ``drawn`` draws one part below the other.

    The margins are fixed, because matplotlib's own layouts draw everything a second time to measure it.
    """
    figure = Figure(figsize=(width, height))
    left, right = MARGINS["left"] / width, 1 - MARGINS["right"] / width
    bottom, top = MARGINS["bottom"] / height, 1 - (MARGINS["top"] + (0.3 if title else 0)) / height
    grid = {"left": left, "right": right, "bottom": bottom, "top": top, "hspace": 0.08}
    axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    for axis, draw in zip(axes, drawn, strict=True):
        draw(axis, night)
    for axis in axes[:-1]:
        axis.set_xlabel("")
        axis.tick_params(labelbottom=False)
    axes[0].set_title(title, loc="left", fontweight="bold", parse_math=False)
    return figure


def night_figure(night: "Hypnogram") -> Figure:
    """Hypnogram, hypnodensity and, if there are any, spectrogram and breathing events, from top to bottom."""
    drawn: list[Draw] = [draw_hypnogram, draw_hypnodensity]
    drawn += [draw_spectrogram] if night.spectra is not None else []
    drawn += [draw_events] if night.events else []
    return picture(night, drawn, 11, 2.6 * len(drawn), night.title)


def draw_hypnogram(axis: Axes, night: "Hypnogram") -> None:
    """Stages as steps, REM in red, unscored epochs hatched; the scorer's stages, if any, are a pale line behind."""
    if night.scored is not None:
        _steps(axis, night.scored, color="#999999", linewidth=3, alpha=0.6, label="scorer")
    _steps(axis, night.stages, color=GREY, linewidth=1.1, label="model")
    rem = np.where(night.stages == STAGES.index("REM"), night.stages, UNSCORED)
    _steps(axis, rem, color=COLOURS["REM"], linewidth=4, solid_capstyle="butt")
    _shade(axis, night.stages == UNSCORED)
    axis.set_yticks(range(len(STAGES)), FROM_TOP)
    axis.set_ylim(len(STAGES) - 0.5, -0.5)
    axis.grid(axis="y", color="#eeeeee")
    if night.scored is not None:
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _time_axis(axis, night)


def _steps(axis: Axes, stages: np.ndarray, **style: Any) -> None:
    """A line that steps from stage to stage and is broken where an epoch has none."""
    levels = np.array([*map(FROM_TOP.index, STAGES), np.nan])
    edges = np.arange(len(stages) + 1) * HOURS
    axis.plot(np.repeat(edges, 2)[1:-1], np.repeat(levels[stages], 2), **style)


def draw_hypnodensity(axis: Axes, night: "Hypnogram") -> None:
    """The probabilities of the stages, stacked; N3 at the bottom, wake at the top."""
    from_bottom = FROM_TOP[::-1]
    edges = np.arange(len(night.stages) + 1) * HOURS
    columns = [STAGES.index(stage) for stage in from_bottom]
    heights = np.vstack([night.probabilities, night.probabilities[-1:]])[:, columns].T
    axis.stackplot(edges, heights, step="post", colors=[COLOURS[stage] for stage in from_bottom], labels=from_bottom)
    axis.set_ylim(0, 1)
    axis.set_ylabel("probability")
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _time_axis(axis, night)


def draw_spectrogram(axis: Axes, night: "Hypnogram") -> None:
    """Power up to 30 Hz, in dB; the colours span the values of most of the night."""
    assert night.spectra is not None
    # The spectrum has a value every half hertz, from 0 Hz on.
    highest = (night.spectra.shape[1] - 1) / 2
    low, high = extent_of_spectra(night)
    image = axis.imshow(
        night.spectra.T,
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="viridis",
        extent=(0, len(night.spectra) * HOURS, -0.25, highest + 0.25),
        vmin=low,
        vmax=high,
    )
    axis.set_ylim(0, highest)
    axis.set_ylabel("Hz")
    axis.figure.colorbar(image, cax=axis.inset_axes((1.015, 0, 0.015, 1)), label="dB")
    _time_axis(axis, night)


def extent_of_spectra(night: "Hypnogram") -> tuple[float, float]:
    """The limits in dB between which most of the night's power lies, at least 1 dB apart."""
    assert night.spectra is not None
    heard = night.spectra[night.stages != UNSCORED] if (night.stages != UNSCORED).any() else night.spectra
    low, high = np.percentile(heard, (5, 99))
    return float(low), float(max(high, low + 1))


def draw_events(axis: Axes, night: "Hypnogram") -> None:
    """A row for each breathing event: its probability along the night, and red bars where it was found."""
    hours = np.arange(len(night.stages) + 1) * HOURS
    for row, (name, probability) in enumerate(night.events.items()):
        probability = np.append(probability, probability[-1])
        axis.fill_between(hours, row + 1, row + 1 - 0.8 * probability, step="post", color="#9bb8d3", linewidth=0)
        found = [(hours[first], (end - first) * HOURS) for first, end in stretches(night.found(name))]
        axis.broken_barh(found, (row + 0.04, 0.12), color=COLOURS["REM"])
    axis.set_yticks(np.arange(len(night.events)) + 0.6, list(night.events))
    axis.set_ylim(len(night.events) + 0.05, 0)
    _time_axis(axis, night)


def map_of_epochs(places: np.ndarray, stages: np.ndarray, title: str) -> Figure:
    """Epochs as dots at their ``places`` (epochs, 2), coloured by their ``stages`` int (epochs,), 0..4."""
    figure = Figure(figsize=(7, 6))
    axis = figure.add_axes((0.02, 0.02, 0.8, 0.91))
    # All in one call, in the order of the epochs: otherwise the dots of one stage would cover the others.
    axis.scatter(places[:, 0], places[:, 1], s=8, c=[COLOURS[STAGES[stage]] for stage in stages], linewidths=0)
    for stage in FROM_TOP:
        axis.scatter([], [], s=30, c=COLOURS[stage], label=f"{stage} {(stages == STAGES.index(stage)).mean():.0%}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, loc="left", fontweight="bold", parse_math=False)
    return figure


def _shade(axis: Axes, which: np.ndarray) -> None:
    for first, end in stretches(which):
        axis.axvspan(first * HOURS, end * HOURS, facecolor="none", edgecolor="#bbbbbb", hatch="///", linewidth=0)


def _time_axis(axis: Axes, night: "Hypnogram") -> None:
    """A time axis in hours from the first epoch, or by the clock if the start is known."""
    hours = len(night.stages) * EPOCH_SECONDS / 3600
    axis.set_xlim(0, hours)
    step = next(step for step in (1 / 12, 1 / 4, 1 / 2, 1, 2, 4, 12, 24) if hours / step <= 9 or step == 24)
    if night.start is None:
        axis.xaxis.set_major_locator(MultipleLocator(step))
        axis.set_xlabel("hours")
        return
    # Ticks at whole hours of the clock rather than of the recording.
    begin = night.start.replace(tzinfo=None)
    into = (begin.hour * 60 + begin.minute + begin.second / 60) / 60
    ticks = np.arange(np.ceil(into / step) * step, into + hours + 1e-9, step) - into
    axis.set_xticks(ticks)
    clock = FuncFormatter(lambda hour, _: f"{begin + timedelta(hours=float(hour), seconds=1e-3):%H:%M}")
    axis.xaxis.set_major_formatter(clock)
    axis.set_xlabel("clock time")
