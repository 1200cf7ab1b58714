"""The page of a staged night, one HTML file that needs no network, made of ``night.html``, ``night.js`` and Bokeh."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.recordings.edf import said
from data.terms import EPOCH_SECONDS, STAGES, VERSION
from evaluation.breathing import breathing_line
from evaluation.figures import COLOURS, FROM_TOP, extent_of_spectra
from evaluation.hypnogram import NAMES, UNSURE, Hypnogram
from evaluation.signals import packed
from evaluation.stages import Scores
from evaluation.statistics import FIGURES

LONGEST = 15
"""How many stretches a table lists at most."""
UNKNOWN_LIGHTS = "not known, so the whole recording counts as time in bed"

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""It escapes every value, and a missing value is an error."""
TEMPLATE = ENVIRONMENT.get_template("night.html")


@dataclass(frozen=True)
class Section:
    """A part of the page: warnings, sentences, and tables by their captions."""

    title: str
    warnings: Sequence[str] = ()
    text: Sequence[str] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def page(night: Hypnogram, statistics: dict[str, Any]) -> str:
    """The page of ``night``, which has these ``statistics``: the text of an HTML file that needs no other file."""
    before = [_recording(night), _statistics(night, statistics)]
    if breathing := night.breathing:
        before.append(_breathing(breathing))
    after = [_unsure(night)]
    if correction := night.correction:
        after.append(_agreement("Agreement of the models with the corrections", correction, "corrected"))
    if scores := night.agreement:
        after.append(_agreement("Agreement with the scoring", scores, "scorer"))
        after.append(_differing(night))
    return TEMPLATE.render(
        title=night.title,
        before=before,
        after=after,
        epochs=len(night.stages),
        stages=NAMES,
        signals=night.traces,
        scored=night.scored is not None,
        data=_shown(night),
        scripts=SCRIPTS,
        version=VERSION,
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )


def _scripts() -> list[tuple[str, str]]:
    """The page's scripts, each with the base64 SHA-256 by which its policy allows it; Bokeh itself is not imported."""
    folder = Path(str(distribution("bokeh").locate_file("bokeh/server/static/js")))
    paths = (folder / "bokeh.min.js", folder / "bokeh-api.min.js", Path(__file__).with_name("night.js"))
    scripts = [path.read_text(encoding="utf-8") for path in paths]
    return [(script, b64encode(sha256(script.encode()).digest()).decode()) for script in scripts]


SCRIPTS = _scripts()


def _shown(night: Hypnogram) -> dict[str, Any]:
    """The data that the page's script shows, as JSON values."""
    model = night.stages if night.model_stages is None else night.model_stages
    return {
        "name": night.title,
        "fingerprint": night.fingerprint,
        "start": night.start and 1000 * int(night.start.replace(tzinfo=UTC).timestamp()),
        "epoch_seconds": EPOCH_SECONDS,
        "names": STAGES,
        "from_top": FROM_TOP,
        "colours": COLOURS,
        "model": model.tolist(),
        "stages": night.stages.tolist(),
        "scored": None if night.scored is None else night.scored.tolist(),
        "confidence": night.confidence.round(4).tolist(),
        "probabilities": night.probabilities.T.astype(float).round(3).tolist(),
        "doubtful": np.flatnonzero(night.doubtful).tolist(),
        "corrections": [
            {"epoch": epoch, "who": who, "when": when}
            for epoch, who, when in night.about.get("corrections", {}).get("each", ())
        ],
        "lights": night.lights,
        "events": {name: probability.astype(float).round(3).tolist() for name, probability in night.events.items()},
        "spectra": None if night.spectra is None else _spectra(night),
        "signals": packed(night.traces),
    }


def _spectra(night: Hypnogram) -> dict[str, Any]:
    """The spectrogram as one byte for each frequency and epoch, and the palette, in which 255 is the highest power."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    assert night.spectra is not None
    low, high = extent_of_spectra(night)
    levels = np.clip(255 * (night.spectra - low) / (high - low), 0, 255).astype(np.uint8)
    bins = night.spectra.shape[1]
    # There is a value every half hertz, from 0 Hz on.
    return {
        "bins": bins,
        "highest": (bins - 1) / 2,
        "levels": b64encode(levels.T.tobytes()).decode(),
        "palette": [to_hex(colour) for colour in colormaps["viridis"](np.arange(256))],
    }


def _recording(night: Hypnogram) -> Section:
    epochs, tasks = len(night.stages), Counter(m.get("task", "sleep_stage") for m in night.about.get("models", ()))
    staged = [channel["name"] for channel in night.about.get("channels", ())]
    shown = [trace.name for trace in night.traces if trace.name not in staged]
    rows = {
        "Recording": night.title,
        "Subject's code": night.about.get("subject", ""),
        "Patient, from the recording's header": night.patient,
        "Start": said(night.start) if night.start else "not known",
        "Length": f"{epochs * EPOCH_SECONDS / 3600:.2f} h, {epochs} epochs of {EPOCH_SECONDS} s",
        "Lights off and on": " and ".join(map(night.clock, night.lights)) if night.lights else UNKNOWN_LIGHTS,
        "Staged channels": ", ".join(staged),
        "Other channels shown": ", ".join(shown),
        "Staged by": ", ".join(
            f"{task.replace('_', ' ')}: {'one model' if n == 1 else f'the mean of {n} models'}"
            for task, n in tasks.items()
        ),
        "Mean confidence": f"{night.mean_confidence:.2f}",
        "Corrected by": _corrected_by(night),
    }
    # The type is object, because a channel's name may hold characters that are not valid text.
    table = pd.DataFrame([row for row in rows.items() if row[1]], columns=["what", "value"], dtype=object)
    return Section(
        "Recording",
        warnings=[
            *(f"Warning: {text}" for text in night.about.get("warnings", ())),
            *(f"Note: {text}" for text in night.remarks),
        ],
        text=[
            *(f"Assumed: {text}." for text in night.about.get("assumptions", ())),
            *(
                ["The epochs before and after an epoch helped to decide its stage."]
                if night.smoothed is not None
                else ()
            ),
            "This page counts epochs from 1; the column epoch in files counts from 0.",
            "For research only. This is not a medical device, and nothing here is a diagnosis.",
        ],
        tables={"What was recorded and staged": table},
    )


def _corrected_by(night: Hypnogram) -> str:
    told = night.about.get("corrections")
    return f"{' and '.join(told['who']) or 'somebody'}, {told['epochs']} epochs" if told else ""


def _statistics(night: Hypnogram, statistics: dict[str, Any]) -> Section:
    """The figures of the night, and beside them, if there is a scorer, the scorer's and the differences."""
    compared = night.compared_statistics()
    ours = "models" if night.model_stages is None else "corrected"

    def beside(names: Mapping[str, tuple[str, str]], part: str = "") -> pd.DataFrame:
        rows = []
        for label, (key, unit) in names.items():
            own = (statistics[part] if part else statistics)[key]
            row = {"figure": label, ours: _number(own, unit)}
            if compared:
                own, other = ((of[part] if part else of)[key] for of in compared)
                if night.partly_scored:
                    row[f"{ours}, where scored"] = _number(own, unit)
                difference = None if own is None or other is None else own - other
                row |= {"scorer": _number(other, unit), "difference": _number(difference, unit, "+")}
            rows.append(row)
        return pd.DataFrame(rows)

    figures = {f"{name.replace('_', ' ')}: {what}": (name, unit) for name, (what, unit) in FIGURES.items()}
    minutes = {stage: (stage, "min") for stage in STAGES}
    of_bed = {f"{stage} of TIB": (stage, "%") for stage in STAGES}
    of_sleep = {f"{stage} of TST": (stage, "%") for stage in STAGES[1:]}
    thirds = pd.DataFrame([{"stage": stage, **_third(statistics, stage)} for stage in STAGES])
    transitions = pd.DataFrame(statistics["transitions"]).T.add_prefix("to ").rename_axis("from").reset_index()
    tables = {
        "The night": beside(figures),
        "Its stages": beside(minutes, "minutes"),
        "Shares of time in bed": beside(of_bed, "share_of_TIB"),
        "Shares of sleep": beside(of_sleep, "share"),
        "Thirds of the sleep period": thirds,
        "Epochs of one stage followed by another": transitions,
    }
    return Section("Sleep statistics", tables=tables)


def _third(statistics: dict[str, Any], stage: str) -> dict[str, str]:
    names = ("first", "second", "last")
    return {name: _number(third[stage], "min") for name, third in zip(names, statistics["thirds"], strict=True)}


def _breathing(breathing: dict[str, Any]) -> Section:
    estimate = (
        "The index is an estimate from epochs of 30 s: a run of epochs with an event counts as one event, so the index "
        "is too low if events are close together."
    )
    by_position = "A position lasts until the next one; an epoch has the position in which its middle lies."
    if not breathing["index_by_position"]:
        by_position = "There is no index by position, because neither the recording nor the scoring names positions."
    text = [f"{breathing_line(breathing)}.", estimate, by_position]
    indices = {"sleep": breathing["apnea_hypopnea_index"], **breathing["index_by_stage"]}
    table = pd.DataFrame([(stage, _number(index, "/h")) for stage, index in indices.items()], columns=["in", "index"])
    tables = {"Apnea-hypopnea index by stage": table}
    if lain := breathing["index_by_position"]:
        rows = [(name, _number(of["minutes"], "min"), _number(of["index"], "/h")) for name, of in lain.items()]
        tables["Apnea-hypopnea index by position"] = pd.DataFrame(rows, columns=["position", "sleep", "index"])
    if scorer := breathing["scorer"]:
        beside = {
            "the scorer's": list(scorer),
            "models": [_number(of["models"], "/h") for of in scorer.values()],
            "scorer": [_number(of["index"], "/h") for of in scorer.values()],
            "difference": [_number(of["difference"], "/h", "+") for of in scorer.values()],
        }
        tables["The models' apnea-hypopnea index and the scorer's"] = pd.DataFrame(beside)
        text.append(
            "The scorer's index is given twice: counted from the events that begin in the scorer's sleep, and "
            "estimated from the epochs that hold an event, like that of the models."
        )
    return Section("Apnea and hypopnea", text=text, tables=tables)


def _number(value: float | None, unit: str, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.{1 if unit else 0}f}" + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")


def _unsure(night: Hypnogram) -> Section:
    title, table = "To check by hand", night.unsure()
    if table.empty:
        return Section(title, text=[f"Every epoch's stage has a probability of {UNSURE:g} or more."])
    told = f"{table['epochs'].sum()} epochs have no stage with a probability of {UNSURE:g} or more."
    where = f"They are in {len(table)} stretches."
    caption = "The longest stretches" if len(table) > LONGEST else "The stretches"
    return Section(title, text=[f"{told} {where}"], tables={caption: _readable(night, table)})


def _agreement(title: str, scores: Scores, who: str) -> Section:
    by_stage = scores.by_stage.rename_axis("stage").reset_index()
    confusion = pd.DataFrame(scores.confusion, STAGES, [f"model {stage}" for stage in STAGES])
    told = f"{scores.line()} that both have scored."
    crossed = confusion.rename_axis(who).reset_index()
    return Section(title, text=[told], tables={"Stage by stage": by_stage, "Epochs": crossed})


def _differing(night: Hypnogram) -> Section:
    title, table = "Where the two differ", night.differing()
    if table.empty:
        return Section(title, text=["The models and the scorer agree in every epoch that both have scored."])
    return Section(title, tables={"The longest differences": _readable(night, table)})


def _readable(night: Hypnogram, table: pd.DataFrame) -> pd.DataFrame:
    """The first rows of a table of stretches, with clock times, and with epochs counted from 1."""
    table = table.head(LONGEST)
    shown = [night.clock(epoch) for epoch in table["epoch"]]
    stages = "models" if night.model_stages is None else "corrected"
    columns = {"from": shown, "first epoch": table["epoch"] + 1, "epochs": table["epochs"], stages: table["stages"]}
    if "scored" in table:
        columns["scorer"] = table["scored"]
    return pd.DataFrame({**columns, "confidence": table["confidence"].map("{:.2f}".format)})
