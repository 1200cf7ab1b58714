"""When two runs are the same run: for each step, the names of the values that decide its result.

A value that is not listed, such as a title, a published figure or a limit on disk space, may change before a run
continues.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.terms import InputError
from runs.settings import RECSLEEPNET_SECTIONS, SYNTHSLEEPNET_SECTIONS, Config, names_in

_SYNTHETIC = ("hours", "synthetic_seed")
"""These values matter only for the nights of the database ``synthetic``."""
_DATA = ("db", "subjects", "folds", "scaled", *_SYNTHETIC)
_DRAWN = ("split", "nights")
"""These come last in each list, so that a message names the value that made them differ."""


def _of_synth(*beginnings: str) -> tuple[str, ...]:
    """The names of values in SynthSleepNet's sections that begin with one of ``beginnings``."""
    return tuple(name for name in names_in(SYNTHSLEEPNET_SECTIONS) if name.startswith(beginnings))


RECSLEEPNET = (*_DATA, "channel", *names_in(RECSLEEPNET_SECTIONS), "init", *_DRAWN)
"""``init`` is the SHA-256 of the weights that a network began with; None if they were drawn at random."""
_SYNTHSLEEPNET = (*_DATA, *_of_synth("seed", "validation_fraction", "clip_", "labelled_", "weight_"))
UNIMODAL = (
    *(*_SYNTHSLEEPNET, "channels", *_of_synth("frame_", "unimodal_", "knn_"), "accumulation", "reconstruction_weight"),
    *(*_of_synth("pretraining_"), "contrastive_weight", "round_nights", "precision", *_DRAWN),
)
MULTIMODAL = (*UNIMODAL, *_of_synth("fusion_", "multimodal_"), "encoders")
"""``encoders`` are the SHA-256 of the weights of each modality's encoder; they come last, so that a message names the
value that made them differ."""
_LABELLED = (*_SYNTHSLEEPNET, "task", "label_fraction", "event_balance", "encoder", "head_dropout")
"""``encoder``, the SHA-256 of the encoder's weights, stands for all values that decided its pretraining."""
LINEAR_PROBING = (*_LABELLED, *_of_synth("probing_"), *_DRAWN)
FINE_TUNING = (
    *(*_LABELLED, "tcm", "tcm_layers", *_of_synth("adaptation_", "fine_tuning_", "stretch_")),
    *("validation_nights", "precision", *_DRAWN),
)
STEPS = (RECSLEEPNET, UNIMODAL, MULTIMODAL, LINEAR_PROBING, FINE_TUNING)

NO_EFFECT = ("night_patterns", "modalities", "frozen_gib")
"""Hyper-parameters that decide no result. Instead of the first two, the names of the nights that were found and the
channels that were used are compared."""


def require_same_run(
    folder: Path, names: Sequence[str], before: dict[str, Any], now: dict[str, Any], config: Config
) -> None:
    """Refuse to mix two runs in one folder.

    ``before`` is the record of the run in the folder, ``now`` that of this run: ``config``, with its sections, and
    whatever else was recorded.

    Raises:
        InputError: one of the values ``names``, which decide the result, differs; the message names the first one.
    """
    held, wanted = (deciding_values(names, record, config) for record in (before, now))
    for name, value in wanted.items():
        if name in held and held[name] != value:
            raise InputError(
                f"{folder} was trained with {name} {held[name]}, not {value}: use --suffix or --out for the new run, "
                "or remove that folder."
            )


def deciding_values(names: Sequence[str], record: dict[str, Any], config: Config) -> dict[str, Any]:
    """The values of ``names`` in the record of a run; a value with several parts, such as a split, gives each part.

    Records of all versions are read by the same rule. The section ``database`` of ``config`` was called ``dataset`` in
    the first version. A hyper-parameter that is not in the record, because its version did not have it, has its
    default. Anything else that is not in the record is left out.
    """
    defaults = (asdict(type(section)()) for section in (config.model, config.training, config.synthetic))
    held = record["config"]
    database = held["database"] if "database" in held else held["dataset"]
    # The records of versions that could not begin with trained weights have no such value.
    values: dict[str, Any] = {"init": None}
    # If a name appears twice, the later value counts: metadata also hold the fold's seed, besides the configuration's.
    for section in (*defaults, database, record, held["model"], held["training"], held["synthetic"]):
        values |= section
    if "tcm" in values:
        # In version 1, a temporal context module had one layer and its name.
        values.setdefault("tcm_layers", [values["tcm"]])
    flat: dict[str, Any] = {}
    for name in names:
        if name not in values or (name in _SYNTHETIC and values["db"] != "synthetic"):
            continue
        value = json.loads(json.dumps(values[name]))
        # Channels are compared as a whole, because one more or less is a difference too.
        parts = isinstance(value, dict) and name != "channels"
        flat |= {f"{name} {part}": v for part, v in value.items()} if parts else {name: value}
    return flat


def seed_of(seed: int, fold: int, step: str) -> tuple[int, ...]:
    """The seed of all random draws in a step of a fold, which differs from that of the other steps.

    It depends on the name of the ``step``, such as ``unimodal/eeg``, so a step's name must never change.
    """
    return (seed, fold, *step.encode())
