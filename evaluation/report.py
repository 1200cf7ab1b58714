"""The page of a staged night: one HTML file that needs no network, by ``mne.Report``."""

from collections import Counter
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.terms import EPOCH_SECONDS, STAGES
from evaluation.figures import (
    draw_confusion,
    draw_differences,
    draw_events,
    draw_hypnodensity,
    draw_hypnogram,
    draw_spectrogram,
)
from evaluation.hypnogram import UNSURE, Hypnogram
from evaluation.stages import Scores

if TYPE_CHECKING:
    import mne

LONGEST = 15
"""Stretches that a table lists."""

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

STYLE = """
.night-table { overflow-x: auto; }
.night-table table { border-collapse: collapse; margin-bottom: 1rem; }
.night-table th, .night-table td { border: 0; border-bottom: 1px solid #dddddd; }
.night-table th, .night-table td { padding: 0.25rem 0.75rem; text-align: right; }
.night-table th:first-child, .night-table td:first-child { text-align: left; }
.night-warning { border-left: 4px solid #c2504d; padding: 0.4rem 0.8rem; margin-bottom: 0.5rem; }
.accordion-button .badge, #filter-by-tags-dropdown-menu { display: none; }
.accordion-body img { max-width: 100%; }
footer nav { position: static !important; }
@media (max-width: 700px) {
  #toc { display: none; }
  #content { width: 100%; margin-left: 0; }
  .accordion-body { overflow-x: auto; padding: 0.75rem 0.5rem; }
  .accordion-body img { max-width: 640px; }
  .night-table th, .night-table td { padding: 0.2rem 0.4rem; font-size: 0.85rem; }
}
"""
"""On a phone the table of contents goes, and pictures scroll rather than shrink until nothing can be read."""

HEAD = """
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>
window.addEventListener("resize", (event) => {
  if (document.readyState !== "complete") event.stopImmediatePropagation();
}, true);
</script>
"""
"""Without the first, a phone shows the page as a desktop would. It also resizes the window while the page is being
read, before what MNE's own script would measure is there."""


def page(night: Hypnogram, statistics: dict[str, Any]) -> "mne.Report":
    """The page of ``night``, whose ``statistics`` are given; sections may be added before it is saved."""
    import mne

    report = mne.Report(title=night.title, image_format="png", verbose="error")
    report.add_custom_css(STYLE)
    report.include = HEAD + report.include

    def add(title: str, draw: Callable[[Axes, Hypnogram], None], width: float = 9, height: float = 2.8) -> None:
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots(), night)
        report.add_figure(figure, title)

    report.add_html(_summary(night, statistics), "What was staged")
    add("Hypnogram", draw_hypnogram)
    add("Hypnodensity", draw_hypnodensity)
    if night.spectra is not None:
        add("Spectrogram", draw_spectrogram)
    report.add_html(_statistics(statistics), "Sleep statistics")
    if breathing := night.breathing:
        add("Breathing events", draw_events, height=1 + 0.9 * len(night.events))
        report.add_html(_breathing(breathing), "Apnea and hypopnea")
    report.add_html(_unsure(night), "To check by hand")
    if scores := night.agreement:
        report.add_html(_agreement(scores), "Agreement with the scoring")
        add("Confusion matrix", draw_confusion, 4.6, 4.2)
        add(f"Where the two differ (kappa {scores.kappa:.2f})", draw_differences)
        report.add_html(_table(_readable(night, night.differing())), "The longest differences")
    return report


def _summary(night: Hypnogram, statistics: dict[str, Any]) -> str:
    begin = f", from {night.start:%Y-%m-%d %H:%M:%S}" if night.start else ""
    length = len(night.stages) * EPOCH_SECONDS / 3600
    # First of all what may make the rest worthless.
    lines = [
        f'<p class="night-warning"><strong>Warning:</strong> {escape(text)}</p>'
        for text in night.about.get("warnings", ())
    ]
    lines += [
        f"<p>{len(night.stages)} epochs of 30 s, {length:.2f} h{begin}; "
        f"{statistics['TST'] / 60:.2f} h of sleep. Mean confidence {night.confidence.mean():.2f}.</p>"
    ]
    lines += [f'<p class="night-warning">Note: {escape(text)}</p>' for text in night.remarks]
    lines += [f"<p>Assumed: {escape(text)}.</p>" for text in night.about.get("assumptions", ())]
    tasks = Counter(model.get("task", "sleep_stage") for model in night.about.get("models", ()))
    lines += [
        f"<p>{task.replace('_', ' ').capitalize()}: by {'one model' if n == 1 else f'the mean of {n} models'}.</p>"
        for task, n in tasks.items()
    ]
    lines.append("<p>For research only. This is not a medical device, and nothing here is a diagnosis.</p>")
    return "\n".join(lines)


def _statistics(statistics: dict[str, Any]) -> str:
    named = [(f"{name.replace('_', ' ')}: {what}", statistics[name], unit) for name, (what, unit) in FIGURES.items()]
    figures = pd.DataFrame([(what, _number(value, unit)) for what, value, unit in named], columns=["", " "])
    minutes, share = statistics["minutes"], statistics["share"]
    rows = [(stage, _number(minutes[stage], "min"), _number(share.get(stage), "%")) for stage in STAGES]
    stages = pd.DataFrame(rows, columns=["stage", "time", "of TST"])
    transitions = pd.DataFrame(statistics["transitions"]).T.add_prefix("to ").rename_axis("from").reset_index()
    return f"{_table(figures)}{_table(stages)}<p>Epochs of one stage followed by another:</p>{_table(transitions)}"


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


def _breathing(breathing: dict[str, Any]) -> str:
    return (
        f"<p>{escape(breathing_line(breathing))}.</p><p>An estimate from epochs of 30 s: a run of epochs with an "
        "event counts as one event, so that of events close together too few are counted.</p>"
    )


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def _unsure(night: Hypnogram) -> str:
    table = night.unsure()
    if table.empty:
        return f"<p>Every epoch's stage has a probability of {UNSURE:g} or more.</p>"
    epochs, longest = table["epochs"].sum(), ", the longest of which are" if len(table) > LONGEST else ""
    return (
        f"<p>{epochs} epochs have no stage with a probability of {UNSURE:g} or more. They lie in {len(table)} "
        f"stretches{longest}:</p>{_table(_readable(night, table))}"
    )


def _agreement(scores: Scores) -> str:
    by_stage = scores.by_stage.rename_axis("stage").reset_index()
    return f"<p>{escape(scores.line())}, those that both have scored.</p>{_table(by_stage)}"


def _readable(night: Hypnogram, table: pd.DataFrame) -> pd.DataFrame:
    """The first rows of a table of stretches, with times as people read them."""
    table = table.head(LONGEST)
    shown = [night.clock(epoch) for epoch in table["epoch"]]
    columns = {"from": shown, "first epoch": table["epoch"], "epochs": table["epochs"], "model": table["stages"]}
    if "scored" in table:
        columns["scorer"] = table["scored"]
    return pd.DataFrame({**columns, "confidence": table["confidence"].map("{:.2f}".format)})


def _table(table: pd.DataFrame) -> str:
    html = table.to_html(index=False, border=0, float_format="{:.3f}".format, na_rep="-")
    return f'<div class="night-table">{html}</div>'
