"""What makes two runs the same run: for each step, the names of the values that decide its result.

A value that is not listed, such as a title, a published figure or a limit on disk space, may be another one when a run
continues.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.terms import InputError

if TYPE_CHECKING:
    from runs.settings import Config

_DATA = ("db", "subjects", "folds", "scaled")
_SYNTHETIC = ("hours", "synthetic_seed")
"""These decide only what the nights of the database ``synthetic`` hold."""
_EVERY = (*_DATA, *_SYNTHETIC, "seed", "validation_fraction", "clip_norm")
_DRAWN = ("split", "nights")
"""These come last in each list, so that a message names the value from which they differ."""

RECSLEEPNET = (
    *(*_EVERY, "channel", "filters", "first_kernel", "first_stride", "block_kernel", "first_pool", "second_pool"),
    *("lstm_units", "dropout", "batch_nights", "window_epochs", "reconstruction_passes", "passes", "learning_rate"),
    *("adam_beta_1", "adam_beta_2", "adam_epsilon", "class_weights", "l2", "reconstruction_weight", "transductive"),
    *("precision", *_DRAWN),
)
_SYNTHSLEEPNET = (*_EVERY, "labelled_subjects", "weight_decay")
UNIMODAL = (
    *(*_SYNTHSLEEPNET, "channels", "frame_seconds", "frame_step_seconds", "unimodal_features", "unimodal_heads"),
    *("unimodal_blocks", "unimodal_decoder_features", "unimodal_decoder_heads", "unimodal_decoder_blocks"),
    *("unimodal_projection", "unimodal_temperature", "unimodal_passes", "unimodal_batch", "unimodal_mask_ratio"),
    *("accumulation", "pretraining_rate", "contrastive_weight", "round_nights", "knn_nights", "knn_components"),
    *("knn_neighbours", "precision", *_DRAWN),
)
MULTIMODAL = (
    *(*UNIMODAL, "fusion_features", "fusion_heads", "fusion_blocks", "fusion_decoder_features"),
    *("fusion_decoder_heads", "fusion_decoder_blocks", "fusion_projection", "fusion_temperature", "multimodal_passes"),
    *("multimodal_batch", "multimodal_mask_ratio"),
)
_LABELLED = (*_SYNTHSLEEPNET, "task", "label_fraction", "encoder", "head_dropout")
"""The SHA-256 of the encoder's weights stands for all values that its pretraining depended on."""
LINEAR_PROBING = (*_LABELLED, "probing_passes", "probing_batch", "probing_rate", *_DRAWN)
FINE_TUNING = (
    *(*_LABELLED, "tcm", "adaptation_rank", "adaptation_alpha", "fine_tuning_passes", "fine_tuning_batch"),
    *("fine_tuning_accumulation", "fine_tuning_rate", "stretch_epochs", "stretch_step", "validation_nights"),
    *("precision", *_DRAWN),
)
STEPS = (RECSLEEPNET, UNIMODAL, MULTIMODAL, LINEAR_PROBING, FINE_TUNING)

NO_EFFECT = ("night_patterns", "modalities", "frozen_gib")
"""Hyper-parameters that decide no result: the names of the nights that were found and the channels that were used are
compared instead of the first two."""


def require_same_run(
    folder: Path, names: Sequence[str], before: dict[str, Any], now: dict[str, Any], config: "Config"
) -> None:
    """Refuse to mix two runs in one folder.

    Args:
        folder: of the results.
        names: of the values that decide the result of the step.
        before: the record of the run that the folder holds: ``config``, with its sections, and what else was recorded.
        now: the record of this run.
        config: of this run.

    Raises:
        InputError: a value differs; the first is named.
    """
    held, wanted = (deciding_values(names, record, config) for record in (before, now))
    for name, value in wanted.items():
        if name in held and held[name] != value:
            raise InputError(
                f"{folder} was trained with {name} {held[name]}, not {value}: use --suffix or --out for the new run, "
                "or remove that folder."
            )


def deciding_values(names: Sequence[str], record: dict[str, Any], config: "Config") -> dict[str, Any]:
    """The values of ``names`` in the record of a run; of a value that consists of several, such as a split, each one.

    A record of any version is read by one rule. The section ``database`` of ``config`` was called ``dataset`` in the
    first version. A hyper-parameter that the record does not hold, because its version did not have it, has its
    default. Anything else that the record does not hold is left out.
    """
    defaults = (asdict(type(section)()) for section in (config.model, config.training, config.synthetic))
    held = record["config"]
    database = held["database"] if "database" in held else held["dataset"]
    values: dict[str, Any] = {}
    # A name that stands twice means what the later one says: metadata hold the fold's seed beside the configuration's.
    for section in (*defaults, database, record, held["model"], held["training"], held["synthetic"]):
        values |= section
    flat: dict[str, Any] = {}
    for name in names:
        if name not in values or (name in _SYNTHETIC and values["db"] != "synthetic"):
            continue
        value = json.loads(json.dumps(values[name]))
        flat |= {f"{name} {part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def seed_of(seed: int, fold: int, step: str) -> tuple[int, ...]:
    """The numbers from which all draws of a step of a fold come, unlike those of other steps.

    Args:
        seed: of the configuration.
        fold: its number.
        step: its name, such as ``unimodal/eeg``; another name gives other draws, so it never changes.
    """
    return (seed, fold, *step.encode())
