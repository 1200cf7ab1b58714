"""A model's card: what its metadata say, in words, for people who want to use it.

Its contents follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. What the toolkit cannot know is left
for the person who trained the model to fill in.
"""

from collections.abc import Mapping
from typing import Any

from data.databases import DATABASES

CARD = "MODEL_CARD.md"
TO_BE_FILLED_IN = "*Not known to the toolkit: fill it in before you pass the model on.*"


def card(name: str, metadata: Mapping[str, Any]) -> str:
    """The card of a model as Markdown.

    Args:
        name: the name of its class.
        metadata: those that :func:`runs.networks.save_model` writes; what they do not say is left out.
    """
    about, test = {**metadata}, metadata.get("test") or {}
    db, fold = about.get("db", ""), about.get("split", {}).get("fold")
    title = " ".join([name, *([f"of {db}"] if db else []), *([f"fold {fold}"] if fold is not None else [])])
    return "\n".join(
        [
            f"# {title}",
            "",
            "For research only. This is not a medical device, and its output is not a diagnosis.",
            "",
            "## What it is",
            "",
            *_what(name, about),
            "",
            "## Who was in its data",
            "",
            *_who(about),
            f"- Ages, diagnoses, medication, amplifier and scorers: {TO_BE_FILLED_IN}",
            f"- Licence of the data, and what the subjects agreed to: {TO_BE_FILLED_IN}",
            "",
            "## How good it is",
            "",
            *_how_good(test, bool(about.get("config", {}).get("training", {}).get("transductive"))),
            "",
            "## How it fails",
            "",
            *_how_it_fails(test),
            "- Its figures are those of sleepers of the database that it learnt from. They do not say how much worse "
            "it "
            "is with other amplifiers, montages, ages and illnesses.",
            "- It stages every signal, even one that is not EEG: read the warnings for each recording.",
            "",
        ]
    )


def _what(name: str, about: Mapping[str, Any]) -> list[str]:
    made = about["versions"]
    lines = [f"- Network: {name}, {about['parameters']:,} parameters."]
    if "task" in about:
        lines.append(f"- Predicts: {about['task'].replace('_', ' ')}.")
    if name.endswith("Encoder"):
        lines.append("- Makes embeddings of epochs; its test tells an epoch's stage from the nearest embeddings.")
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
            f"- It was trained on {train} subjects, chosen on {validation} and tested on {test}; nobody is in two of "
            "these groups (`metadata.json` and the fold's `split.json` list them)."
        )
    return lines


def _how_good(test: Mapping[str, Any], transductive: bool) -> list[str]:
    figures = [(name, value) for name, value in test.items() if isinstance(value, int | float)]
    if not figures:
        return ["It has not been tested on nights."]
    saw = "the signals, but not the stages" if transductive else "nothing"
    lines = [f"On its test subjects, of whom it saw {saw} in training:", "", "| figure | value |", "|---|---|"]
    lines += [
        f"| {name.replace('_f1', '-F1').replace('_', ' ')} | {value if isinstance(value, int) else f'{value:.3f}'} |"
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
    return [f"- It finds {worst} worst, with an F1 of {known[worst]:.3f}: do not base a conclusion on {worst} alone."]
