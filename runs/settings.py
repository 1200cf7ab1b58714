"""The settings of one run: the values of ``config.py`` or of a preset, changed by ``--set name=value``."""

import ast
import dataclasses
import difflib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from config import (
    NEURONET_PRESETS,
    PRESETS,
    PROTOCOLS,
    NeuroNetConfig,
    RecSleepNetConfig,
    SyntheticConfig,
    SynthSleepNetConfig,
    SynthSleepNetTraining,
    TrainingConfig,
)
from data.databases import NIGHT_PATTERN, Database, database
from data.terms import EPOCH_SECONDS, MODALITIES, InputError

SETTABLE = {
    "subjects": "different numbers, each 0 or above, such as (0, 1, 2)",
    "folds": "a whole number, 2 or above",
    "night_patterns": "at least one file name with {subject} in it, such as ('subject{subject}.npz',)",
    "channel": "a channel's name",
    "modalities": "names and channels such as (('eeg', 'C3-A2', 'C4-A1'), ('emg', 'EMG')), with different names among "
    f"{', '.join(MODALITIES)}, and different channels",
    "scaled": "True or False",
}
"""The values of a database that can be changed for one run, and what each must be."""

RECSLEEPNET_SECTIONS = (RecSleepNetConfig, TrainingConfig)
SYNTHSLEEPNET_SECTIONS = (SynthSleepNetConfig, SynthSleepNetTraining)

ABLATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "recsleepnet": {
        "crb": ("reconstruction_passes=0", "reconstruction_weight=0"),
        "average": ("global_pooling=maximum",),
        "maximum": ("global_pooling=average",),
    },
    "synthsleepnet": {
        "masked_prediction": ("reconstruction_weight=0",),
        "contrast": ("contrastive_weight=0",),
        "fusion_lora": ("fusion_adaptation_rank=0",),
    },
    "neuronet": {
        "masked_prediction": ("reconstruction_weight=0",),
        "contrast": ("contrastive_weight=0",),
    },
}
"""The parts that each model can be trained without, and the assignments that leave each part out.

Without the CRB, its three convolutions stay, but nothing is reconstructed in either phase.
"""


@dataclass(frozen=True)
class Config:
    """Everything that one run depends on; ``model`` and ``training`` are the sections for the run's model."""

    database: Database
    model: Any
    training: Any
    synthetic: SyntheticConfig

    @property
    def fused(self) -> bool:
        """Whether a fusion, of one or more modalities, learns from labels; otherwise NeuroNet alone does."""
        return not isinstance(self.model, NeuroNetConfig)


def names_in(sections: Iterable[type]) -> list[str]:
    """The names of the values in ``sections`` of ``config.py``."""
    return [value.name for section in sections for value in dataclasses.fields(section)]


def recorded(config: Config) -> dict[str, Any]:
    """The values that a trained model keeps, by section; of the database, only those that can be changed."""
    spec = {name: getattr(config.database, name) for name in ("db", *SETTABLE)}
    return {**dataclasses.asdict(config), "database": spec}


NEURONET_FOLDS = 5
OF_FUSION = ("fusion_", "multimodal_", "adaptation_", "unimodal_ecg_", "event_", "modalities", "labelled_subjects")
"""Values whose names begin with one of these do not exist for NeuroNet alone."""


def configure(
    db: str,
    assignments: Iterable[str] = (),
    preset: str | None = None,
    protocol: str = "corrected",
    model: str = "synthsleepnet",
) -> Config:
    """The settings of a run on ``db``, with ``name=value`` assignments applied.

    With one of :data:`config.PRESETS`, it is a run of SynthSleepNet by one of :data:`config.PROTOCOLS`. If ``model`` is
    ``neuronet``, with one of :data:`config.NEURONET_PRESETS`, it is a run of NeuroNet on the database's channel.
    Without a preset, it is a run of RecSleepNet.

    Raises:
        InputError: a database, preset, protocol or name is unknown, or a value is not allowed.
    """
    alone = model == "neuronet"
    presets = NEURONET_PRESETS if alone else PRESETS
    for what, name, known in (("preset", preset, presets), ("protocol", protocol, PROTOCOLS)):
        if name is not None and name not in known:
            raise InputError(f"there is no {what} {name!r}: choose one of {', '.join(known)}.")
    sections = presets[preset] if preset is not None else (RecSleepNetConfig(), TrainingConfig())
    rules = PROTOCOLS[protocol] if preset is not None else {}
    spec = dataclasses.replace(database(db), folds=NEURONET_FOLDS) if alone else database(db)
    config = Config(spec, sections[0], dataclasses.replace(sections[1], **rules), SyntheticConfig())
    owners = {
        value.name: section.name
        for section in dataclasses.fields(config)
        for value in dataclasses.fields(getattr(config, section.name))
        if section.name != "database" or value.name in SETTABLE
        if not (alone and value.name.startswith(OF_FUSION))
    }
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise InputError(f"--set {assignment!r}: write it as NAME=VALUE.")
        if name not in owners:
            near = difflib.get_close_matches(name, owners, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(owners)}."
            raise InputError(f"--set {name}: config.py has no such value for this model: {hint}")
        section = getattr(config, owners[name])
        changed = dataclasses.replace(section, **{name: _value(section, name, text)})
        config = dataclasses.replace(config, **{owners[name]: changed})
    if alone:
        modalities = (("eeg", config.database.channel),)
        config = dataclasses.replace(config, database=dataclasses.replace(config.database, modalities=modalities))
    _check_database(config.database)
    if preset is not None:
        _check_synthsleepnet(config.model, config.training)
    return config


def without(model: str, parts: Iterable[str]) -> list[str]:
    """The ``name=value`` assignments that leave out ``parts`` of a model; see :data:`ABLATIONS`.

    Raises:
        InputError: the model has no such part, or two of them exclude each other.
    """
    found: dict[str, str] = {}
    for part in dict.fromkeys(parts):
        if part not in ABLATIONS[model]:
            raise InputError(
                f"--without {part}: {model} has no such part to leave out: choose {', '.join(ABLATIONS[model])}."
            )
        for assignment in ABLATIONS[model][part]:
            name = assignment.partition("=")[0]
            if name in found:
                raise InputError(
                    f"--without {part} means {assignment}, but another --without means {found[name]}: give only one."
                )
            found[name] = assignment
    return list(found.values())


def _value(section: Any, name: str, text: str) -> Any:
    """``text`` as a value of the type and range that the field ``name`` of ``section`` has."""
    default, hint = getattr(section, name), get_type_hints(type(section), include_extras=True)[name]
    value: Any = text
    if not isinstance(default, str):
        # A value that cannot be parsed stays a text, which the field refuses.
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = ast.literal_eval(text.title() if isinstance(default, bool) else text)
    if isinstance(default, tuple) and isinstance(value, (int, float, list)):
        value = tuple(value) if isinstance(value, list) else (value,)
    try:
        return TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError:
        wanted = SETTABLE.get(name) or f"{_described(hint)}, such as {default!r}"
        raise InputError(f"--set {name}={text}: it must be {wanted}.") from None


def _described(hint: Any) -> str:
    """What a value of the type ``hint`` must be, in words."""
    if hint is bool:
        return "True or False"
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    items = get_args(hint) if get_origin(hint) is tuple else ()
    if items and get_origin(items[0]) is Literal:
        return f"some of {', '.join(get_args(items[0]))}"
    kind, field = get_args(items[0] if items else hint)
    low, high = field.metadata
    limits = f"between {low.ge} and {high.le}" if hasattr(low, "ge") else f"above {low.gt} and below {high.lt}"
    if items:
        return f"{len(items)} numbers, each {limits}"
    return f"{'a whole number' if kind is int else 'a number'} {limits}"


def _check_synthsleepnet(model: SynthSleepNetConfig, training: SynthSleepNetTraining) -> None:
    """Refuse values that do not fit together."""
    if not training.reconstruction_weight and not training.contrastive_weight:
        raise InputError(
            "reconstruction_weight and contrastive_weight are both 0, so pretraining could learn nothing: leave one "
            "above 0."
        )
    for part in ("unimodal", "unimodal_decoder", "fusion", "fusion_decoder"):
        features, heads = (getattr(model, f"{part}_{name}") for name in ("features", "heads"))
        if features % heads or features % 4:
            raise InputError(f"--set {part}_features={features}: it must be a multiple of 4 and of {part}_heads.")
    frames = int((EPOCH_SECONDS - model.frame_seconds) / model.frame_step_seconds + 1e-9) + 1
    for name in ("unimodal_mask_ratio", "multimodal_mask_ratio"):
        if int(frames * (1 - getattr(training, name))) < 1:
            raise InputError(
                f"--set {name}={getattr(training, name)}: none of the {frames} frames of an epoch would stay unmasked: "
                "lower this value or frame_step_seconds."
            )


def _check_database(spec: Database) -> None:
    """Refuse values that no cross-validation could use."""
    names = [modality[0] for modality in spec.modalities if modality]
    channels = [channel for modality in spec.modalities for channel in modality[1:]]
    each = all(len(modality) > 1 for modality in spec.modalities) and len(set(channels)) == len(channels)
    suits = {
        "subjects": len(set(spec.subjects)) == len(spec.subjects) and all(subject >= 0 for subject in spec.subjects),
        "folds": spec.folds >= 2,
        "modalities": each and len(set(names)) == len(names) and set(names) <= set(MODALITIES),
        "night_patterns": bool(spec.night_patterns) and all(map(NIGHT_PATTERN.fullmatch, spec.night_patterns)),
    }
    for name, suitable in suits.items():
        if not suitable:
            raise InputError(f"--set {name}={getattr(spec, name)}: it must be {SETTABLE[name]}.")
    if spec.subjects and spec.folds > len(spec.subjects):
        raise InputError(
            f"--set folds={spec.folds}: with {len(spec.subjects)} subjects, it must be from 2 to {len(spec.subjects)}."
        )
