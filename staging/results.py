"""Write the files of a staged recording; the JSON file is written last, so if it is there, all are."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from data.recordings import edf
from data.store import read_json
from data.terms import EPOCH_SECONDS, InputError, in_one_line
from data.writing import write_json, written_together
from evaluation.breathing import breathing_line
from evaluation.exchange import save_bids, save_nsrr
from evaluation.hypnogram import Hypnogram, clock
from evaluation.report import page
from runs.saved import versions
from staging.recordings import HYPNOGRAM

DOTS_PER_INCH = 110

SCORES = ("accuracy", "macro_f1", "kappa")
"""The figures of an agreement that are printed."""
ORIGIN = ("recording", "settings", "scoring")
"""What the JSON of a finished recording says about its origin: the files, and how it was staged."""
LIGHTS = ("lights_off", "lights_on")
"""The settings that only figures depend on, so that a finished recording can get others without being staged again."""
COMPUTED = ("name", "start", "epochs", "remarks", "statistics", "breathing", "confidence", "to_check", "agreement")
"""What the JSON holds that follows from the hypnogram."""
NEWER = ("corrected", "lights", "scorer_statistics", "compared_statistics", "correction")
"""More values that follow from it, which the JSON files of earlier versions lack."""
NEEDED = {*ORIGIN, *COMPUTED, "channels", "assumptions", "warnings", "took"}
"""What the JSON must hold so that the result can be printed, or compared with a scoring."""


def write_results(night: Hypnogram, folder: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """Write a night's files into ``folder``, local or remote, and return the content of its JSON file.

    ``origin`` holds path and size of the recording and of the scoring, and the settings; see :func:`finished`.
    """
    started = time.perf_counter()
    statistics = night.statistics()
    computed = time.perf_counter()
    with written_together(folder, f"{night.name}.json") as aside:
        night.save_csv(aside / f"{night.name}{HYPNOGRAM}.csv")
        night.save_edf(aside / f"{night.name}{HYPNOGRAM}.edf")
        save_bids(night, aside)
        save_nsrr(night, aside / f"{night.name}-nsrr.xml")
        night.plot().savefig(aside / f"{night.name}.png", dpi=DOTS_PER_INCH)
        html = page(night, statistics)
        (aside / f"{night.name}.html").write_text(html, encoding="utf-8", errors="backslashreplace")
        result = _described(night, statistics, origin, started, computed)
        write_json(aside / f"{night.name}.json", result)
    return result


def _described(
    night: Hypnogram, statistics: dict[str, Any], origin: dict[str, Any], started: float, computed: float
) -> dict[str, Any]:
    """The content of a night's JSON file; its statistics were computed between ``started`` and ``computed``."""
    about, compared = dict(night.about), night.compared_statistics()
    took = {**about.pop("took"), "statistics": computed - started, "report": time.perf_counter() - computed}
    return {
        "name": night.name,
        **origin,
        "start": edf.as_json(night.start),
        "epochs": len(night.stages),
        # If the recording was staged earlier, ``about`` replaces these by the versions of that time.
        "versions": versions(),
        **about,
        "remarks": night.remarks,
        "lights": night.lights and dict(zip(("off_epoch", "on_epoch"), night.lights, strict=True)),
        "statistics": statistics,
        "scorer_statistics": compared and compared[1],
        # Those of the models on the epochs that a partial scoring has.
        "compared_statistics": compared and compared[0] if night.partly_scored else None,
        "breathing": night.breathing,
        "confidence": night.mean_confidence,
        "to_check": night.unsure().to_dict("records"),
        "agreement": night.agreement and night.agreement.to_json(),
        "correction": night.correction and night.correction.to_json(),
        "took": {part: round(seconds, 3) for part, seconds in took.items()},
    }


def finished(path: Path, origin: dict[str, Any], needed: Collection[str]) -> dict[str, Any] | None:
    """The JSON of a finished recording, or None if it is not finished; InputError if it has another ``origin``.

    Another scoring, and other :data:`LIGHTS`, are allowed, because a finished recording can get them later.

    Args:
        path: the path of the JSON file.
        origin: see :func:`write_results`.
        needed: what the JSON must hold; otherwise it is damaged, which also raises InputError.
    """
    try:
        result = read_json(path)
    except InputError:
        if path.exists():
            raise
        return None
    other = {"recording": "is of another recording", "settings": "was made with other settings"}
    if (
        not isinstance(result, dict)
        or not result.keys() >= set(needed)
        or not all(isinstance(result[key], dict) for key in other)
    ):
        raise InputError(f"{path} is not a result of this command: remove it, or name another --out.")
    for key, what in other.items():
        held, wanted = result[key], origin[key]
        for name in held | wanted:
            if name not in LIGHTS and held.get(name) != wanted.get(name):
                raise InputError(
                    f"{path} {what} ({name} {_as_text(held.get(name))}, not {_as_text(wanted.get(name))}): give "
                    f"{_overwriting(result)} to replace it, or name another --out."
                )
    return result


def _as_text(value: Any) -> str:
    """The value of a setting in a message; of models, the beginnings of their hashes."""
    if isinstance(value, list):
        return ", ".join(str(each)[:20] for each in value) or "of the command's choice"
    if value is None or isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _overwriting(result: dict[str, Any]) -> str:
    """The option that replaces a finished ``result``, and what is lost with it."""
    lost = " (which drops its corrections, unless --corrections is given too)" if result.get("corrections") else ""
    return f"--overwrite{lost}"


def stored(folder: Path, name: str, result: dict[str, Any]) -> Hypnogram:
    """The night of a finished recording, from its JSON ``result`` and its CSV, without spectra and scorer's stages.

    Raises:
        InputError: one of the two files is damaged.
    """
    path = folder / f"{name}{HYPNOGRAM}.csv"
    about = {key: value for key, value in result.items() if key not in (*ORIGIN, *COMPUTED, *NEWER)}
    try:
        night = Hypnogram.read_csv(path, name=name, start=edf.from_json(result["start"]), about=about)
        if len(night.stages) != result["epochs"]:
            raise InputError(f"{path} and the JSON file beside it differ in the number of epochs.")
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{in_one_line(error)} Stage the recording again with {_overwriting(result)}.") from None
    return night


def told(night: dict[str, Any]) -> str:
    """The JSON of a finished recording as a few lines, to print on a terminal."""
    statistics = night["statistics"]
    known = [name for name in ("TST", "SOL", "WASO") if statistics[name] is not None]
    figures = "   ".join(f"{name} {statistics[name]:.0f} min" for name in known)
    minutes = "  ".join(f"{stage} {value:.0f}" for stage, value in statistics["minutes"].items())
    unscored = f"  unscored {statistics['unscored']:.0f}" if statistics["unscored"] else ""
    lines = [
        f"{night['name']}: {night['epochs']} epochs ({night['epochs'] * EPOCH_SECONDS / 3600:.1f} h)   {figures}   "
        f"SE {statistics['SE']:.0f} %   confidence {night['confidence']:.2f}",
        *(f"  WARNING: {text}" for text in night["warnings"]),
        f"  minutes: {minutes}{unscored}",
    ]
    if lights := night.get("lights"):
        off, on = (clock(edf.from_json(night["start"]), lights[f"{which}_epoch"]) for which in ("off", "on"))
        lines.append(f"  lights: off {off}, on {on}")
    if night["breathing"]:
        lines.append(f"  breathing: {breathing_line(night['breathing'])}")
    lines += [f"  assumed: {text}" for text in night["assumptions"]]
    lines += [f"  note: {text}" for text in night["remarks"]]
    if correction := night.get("correction"):
        who = " and ".join(night["corrections"]["who"]) or "somebody"
        lines.append(f"  corrected: {night['corrections']['epochs']} epochs, by {who}")
        lines.append(f"  agreement of the models with the corrections: {_agreement(correction)}")
    if night["agreement"]:
        lines.append(f"  agreement with the scoring: {_agreement(night['agreement'])}")
    return "\n".join(lines)


def _agreement(scores: dict[str, Any]) -> str:
    known = [name for name in SCORES if scores[name] is not None]
    given = "   ".join(f"{name.replace('_f1', '-F1')} {scores[name]:.3f}" for name in known)
    return f"{given}   {scores['epochs']} epochs"
