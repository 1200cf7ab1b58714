"""A model's card: what its metadata say, in words that a person reads before using it.

Its headings are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, as far as a training knows what
belongs under them; the rest is left open for whoever trained the model.
"""

from collections.abc import Mapping
from typing import Any

from data.databases import DATABASES

CARD = "MODEL_CARD.md"
TO_BE_FILLED_IN = "*Not known to the toolkit: fill it in before you pass the model on.*"


def card(name: str, metadata: Mapping[str, Any]) -> str:
    """The card of a model as Markdown.

    Args:
        name: of its class.
        metadata: what :func:`runs.networks.save_model` writes; what they do not say is left out.
    """
    about, test = {**metadata}, metadata.get("test") or {}
    db, fold = about.get("db", ""), about.get("split", {}).get("fold")
    title = " ".join([name, *([f"of {db}"] if db else []), *([f"fold {fold}"] if fold is not None else [])])
    return "\n".join(
        [
            f"# {title}",
            "",
            "For research only. This is not a medical device, and nothing that it says is a diagnosis.",
            "",
            "## What it is",
            "",
            *_what(name, about),
            "",
            "## Who was in its data",
            "",
            *_who(about),
            f"- Ages, diagnoses, medication, amplifier and scorers: {TO_BE_FILLED_IN}",
            f"- Licence of the data, and what their subjects consented to: {TO_BE_FILLED_IN}",
            "",
            "## How good it is",
            "",
            *_how_good(test, bool(about.get("config", {}).get("training", {}).get("transductive"))),
            "",
            "## How it fails",
            "",
            *_how_it_fails(test),
            "- Its figures are of sleepers of the database that it learnt from. By how much it is worse with other "
            "amplifiers, montages, ages and illnesses, they do not say.",
            "- It gives every signal some stages, also one that is no EEG: read the warnings of each recording.",
            "",
        ]
    )


def _what(name: str, about: Mapping[str, Any]) -> list[str]:
    made = about["versions"]
    lines = [f"- Network: {name}, {about['parameters']:,} parameters."]
    if "task" in about:
        lines.append(f"- Tells: {about['task'].replace('_', ' ')}.")
    if name.endswith("Encoder"):
        lines.append("- Makes embeddings of epochs, whose nearest neighbours tell the stages in its test.")
    recipe = about.get("recipe") or {}
    for modality, channel in recipe.get("channels", {}).items():
        band, scaling = channel.get("band_hz"), recipe.get("scaling")
        lines.append(
            f"- Takes {modality}: {channel['name']}, {recipe['sampling_rate_hz']} Hz, {recipe['unit']}"
            f"{f', filtered to {band[0]:g} to {band[1]:g} Hz' if band else ''}"
            f"{f', scaled by its {scaling}' if scaling else ''}."
        )
    if recipe.get("level"):
        lines.append(f"- Was trained at a level of {recipe['level']['amplitude']:.3g} {recipe['unit']}.")
    lines.append(f"- Made by recsleep {made['recsleep']} with Keras {made['keras']} on {made['backend']}.")
    return lines


def _who(about: Mapping[str, Any]) -> list[str]:
    known, split = DATABASES.get(about.get("db", "")), about.get("split", {})
    lines = [f"- Database: {known.title}."] if known else []
    if {"train", "validation", "test"} <= split.keys():
        train, validation, test = (len(split[part]) for part in ("train", "validation", "test"))
        lines.append(
            f"- {train} subjects trained it, {validation} chose it, {test} tested it; nobody is in two of the parts "
            "(`metadata.json` and the fold's `split.json` name them)."
        )
    return lines


def _how_good(test: Mapping[str, Any], transductive: bool) -> list[str]:
    figures = [(name, value) for name, value in test.items() if isinstance(value, int | float)]
    if not figures:
        return ["It has not been tested on nights."]
    saw = "the signals, but not the stages" if transductive else "nothing"
    lines = [f"On its test subjects, of whom it saw {saw}:", "", "| figure | value |", "|---|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {value if isinstance(value, int) else f'{value:.3f}'} |"
        for name, value in figures
    ]
    for stage, of_stage in test.get("stages", {}).items():
        lines.append(f"| F1 of {stage} | {'none' if of_stage['f1'] is None else format(of_stage['f1'], '.3f')} |")
    return lines


def _how_it_fails(test: Mapping[str, Any]) -> list[str]:
    known = {stage: figures["f1"] for stage, figures in test.get("stages", {}).items() if figures["f1"] is not None}
    if not known:
        return []
    worst = min(known, key=lambda stage: known[stage])
    return [f"- It finds {worst} worst, with an F1 of {known[worst]:.3f}: do not rest a conclusion on it alone."]
