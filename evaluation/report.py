"""The page of a staged night: one HTML file that needs no network, of the template ``night.html``."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from data.recordings.edf import said
from data.terms import EPOCH_SECONDS, STAGES, VERSION
from evaluation.figures import (
    Draw,
    draw_confusion,
    draw_differences,
    draw_events,
    draw_hypnodensity,
    draw_hypnogram,
    draw_spectrogram,
    picture,
)
from evaluation.hypnogram import UNSURE, Hypnogram
from evaluation.stages import Scores

LONGEST = 15
"""Stretches that a table lists."""
DOTS_PER_INCH = 150
"""Of the pictures: sharp on a screen of a phone too."""

FIGURES = {
    "TIB": ("time in bed, the whole recording", "min"),
    "TST": ("total sleep time", "min"),
    "SPT": ("sleep period, from the first to the last sleep", "min"),
    "SOL": ("sleep onset latency", "min"),
    "REM_latency": ("REM latency, from sleep onset", "min"),
    "WASO": ("wake after sleep onset, within the sleep period", "min"),
    "SE": ("sleep efficiency, TST of TIB", "%"),
    "SME": ("sleep maintenance efficiency, TST of SPT", "%"),
    "unscored": ("not scored", "min"),
}
"""What the figures of :meth:`Hypnogram.statistics` are called on the page."""


def _base64(figure: Figure) -> str:
    """A figure as PNG, as a page holds it."""
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DOTS_PER_INCH)
    return b64encode(png.getvalue()).decode()


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Escapes every value; a value that is missing is an error."""
ENVIRONMENT.filters["base64"] = _base64
TEMPLATE = ENVIRONMENT.get_template("night.html")


@dataclass(frozen=True)
class Section:
    """A part of the page: warnings, sentences, a picture, and tables by their captions, as far as there are any."""

    title: str
    warnings: Sequence[str] = ()
    text: Sequence[str] = ()
    figure: Figure | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def page(night: Hypnogram, statistics: dict[str, Any]) -> str:
    """The page of ``night``, whose ``statistics`` are given: the text of an HTML file that needs no other file."""

    def drawn(title: str, draw: Draw, width: float = 9, height: float = 2.8) -> Section:
        return Section(title, figure=picture(night, [draw], width, height))

    sections = [_summary(night, statistics)]
    sections += [drawn("Hypnogram", draw_hypnogram), drawn("Hypnodensity", draw_hypnodensity)]
    if night.spectra is not None:
        sections.append(drawn("Spectrogram", draw_spectrogram))
    sections.append(_statistics(statistics))
    if breathing := night.breathing:
        sections.append(drawn("Breathing events", draw_events, height=1 + 0.9 * len(night.events)))
        sections.append(_breathing(breathing))
    sections.append(_unsure(night))
    if scores := night.agreement:
        sections.append(_agreement(scores))
        sections.append(drawn("Confusion matrix", draw_confusion, 5.4, 4.1))
        sections.append(drawn("Where the two differ", draw_differences))
        longest = {"The model's stages and the scorer's": _readable(night, night.differing())}
        sections.append(Section("The longest differences", tables=longest))
    written = f"{datetime.now():%Y-%m-%d %H:%M}"
    return TEMPLATE.render(title=night.title, sections=sections, version=VERSION, written=written)


def _summary(night: Hypnogram, statistics: dict[str, Any]) -> Section:
    begin = f", from {said(night.start)}" if night.start else ""
    length = len(night.stages) * EPOCH_SECONDS / 3600
    tasks = Counter(model.get("task", "sleep_stage") for model in night.about.get("models", ()))
    return Section(
        "What was staged",
        warnings=[
            *(f"Warning: {text}" for text in night.about.get("warnings", ())),
            *(f"Note: {text}" for text in night.remarks),
        ],
        text=[
            f"{len(night.stages)} epochs of 30 s, {length:.2f} h{begin}; {statistics['TST'] / 60:.2f} h of sleep. "
            f"Mean confidence {night.mean_confidence:.2f}.",
            *(f"Assumed: {text}." for text in night.about.get("assumptions", ())),
            *(
                f"{task.replace('_', ' ').capitalize()}: by {'one model' if n == 1 else f'the mean of {n} models'}."
                for task, n in tasks.items()
            ),
            *(["Each stage is decided by the epochs before and after it too."] if night.smoothed is not None else ()),
            "For research only. This is not a medical device, and nothing here is a diagnosis.",
        ],
    )


def _statistics(statistics: dict[str, Any]) -> Section:
    named = [(f"{name.replace('_', ' ')}: {what}", statistics[name], unit) for name, (what, unit) in FIGURES.items()]
    figures = pd.DataFrame([(what, _number(value, unit)) for what, value, unit in named], columns=["figure", "value"])
    minutes, share = statistics["minutes"], statistics["share"]
    rows = [(stage, _number(minutes[stage], "min"), _number(share.get(stage), "%")) for stage in STAGES]
    stages = pd.DataFrame(rows, columns=["stage", "time", "of TST"])
    transitions = pd.DataFrame(statistics["transitions"]).T.add_prefix("to ").rename_axis("from").reset_index()
    followed = "Epochs of one stage followed by another"
    return Section("Sleep statistics", tables={"The night": figures, "Its stages": stages, followed: transitions})


def breathing_line(breathing: dict[str, Any]) -> str:
    """What :attr:`Hypnogram.breathing` tells, in a line."""
    events = [
        f"{name} in {told['epochs']} epochs, {told['runs']} {'run' if told['runs'] == 1 else 'runs'}"
        for name, told in breathing.items()
        if isinstance(told, dict)
    ]
    index = breathing["apnea_hypopnea_index"]
    estimate = [] if index is None else [f"estimated apnea-hypopnea index {index:.1f} per hour of sleep"]
    return "; ".join([*events, *estimate])


def _breathing(breathing: dict[str, Any]) -> Section:
    estimate = (
        "An estimate from epochs of 30 s: a run of epochs with an event counts as one event, so that of events close "
        "together too few are counted."
    )
    return Section("Apnea and hypopnea", text=[f"{breathing_line(breathing)}.", estimate])


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f}\N{NO-BREAK SPACE}{unit}"


def _unsure(night: Hypnogram) -> Section:
    title, table = "To check by hand", night.unsure()
    if table.empty:
        return Section(title, text=[f"Every epoch's stage has a probability of {UNSURE:g} or more."])
    told = f"{table['epochs'].sum()} epochs have no stage with a probability of {UNSURE:g} or more."
    where = f"They lie in {len(table)} stretches."
    caption = "The longest stretches" if len(table) > LONGEST else "The stretches"
    return Section(title, text=[f"{told} {where}"], tables={caption: _readable(night, table)})


def _agreement(scores: Scores) -> Section:
    by_stage = scores.by_stage.rename_axis("stage").reset_index()
    told = f"{scores.line()}, those that both have scored."
    return Section("Agreement with the scoring", text=[told], tables={"Stage by stage": by_stage})


def _readable(night: Hypnogram, table: pd.DataFrame) -> pd.DataFrame:
    """The first rows of a table of stretches, with times as people read them."""
    table = table.head(LONGEST)
    shown = [night.clock(epoch) for epoch in table["epoch"]]
    columns = {"from": shown, "first epoch": table["epoch"], "epochs": table["epochs"], "model": table["stages"]}
    if "scored" in table:
        columns["scorer"] = table["scored"]
    return pd.DataFrame({**columns, "confidence": table["confidence"].map("{:.2f}".format)})
