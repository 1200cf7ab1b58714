"""Every value a user may want to change, with the published defaults.

Edit this file, or change single values for one run: ``trainer.py --set learning_rate=3e-4 --set passes=20``.
"""

import ast
import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from data.databases import NIGHT_PATTERN, Database, database
from data.terms import EPOCH_SAMPLES, EPOCH_SECONDS, MODALITIES, STAGES, InputError


@dataclass(frozen=True)
class PreparationConfig:
    """How recordings become night files; see ``data.prepare``."""

    wake_minutes: float = 30
    """Wake kept before the first and after the last epoch of sleep."""
    event_overlap_seconds: float = 1.0
    """How much of an epoch a breathing event must cover for the epoch to be labelled with it."""


@dataclass(frozen=True)
class SyntheticConfig:
    """Synthetic nights, written into ``data/synthetic`` on first use."""

    hours: float = 8.0
    """Length of a night; each subject's differs by up to 6 %."""
    synthetic_seed: int = 2024


@dataclass(frozen=True)
class RecSleepNetConfig:
    """RecSleepNet's architecture."""

    filters: int = 128
    first_kernel: int = 50
    """Samples: half a second at 100 Hz."""
    first_stride: int = 6
    block_kernel: int = 8
    first_pool: int = 8
    second_pool: int = 4
    lstm_units: int = 128
    dropout: float = 0.5


@dataclass(frozen=True)
class TrainingConfig:
    """RecSleepNet's training protocol."""

    seed: int = 42
    """Fold k uses seed + k, for its split, its initial weights, its dropout and its order of nights."""
    validation_fraction: float = 0.10
    batch_nights: int = 15
    """Nights side by side in a batch."""
    window_epochs: int = 20
    """30-s epochs per training step and night; the LSTM's state is carried from window to window."""
    reconstruction_passes: int = 10
    """Passes over the training nights on the reconstruction loss alone."""
    passes: int = 100
    """Passes on the joint loss that follow."""
    learning_rate: float = 1e-4
    adam_beta_1: float = 0.9
    adam_beta_2: float = 0.999
    adam_epsilon: float = 1e-8
    clip_norm: float = 5.0
    """Bound on the gradient's global norm in the joint phase; the first phase is not clipped."""
    class_weights: tuple[float, ...] = (1.0, 1.5, 1.0, 1.0, 1.0)
    l2: float = 1e-3
    """Times half the squared norm of the kernels of the first convolution and the block's forward convolutions."""
    reconstruction_weight: float = 1e-5
    transductive: bool = False
    """Feed the unlabelled signals of validation and test subjects to the first phase, as the reference code does.
    Results then describe subjects whose signals were seen."""
    precision: str = "float32"
    """``mixed_bfloat16`` computes the convolutions in bfloat16 where the processor has it."""


@dataclass(frozen=True)
class SynthSleepNetConfig:
    """SynthSleepNet's architecture."""

    frame_seconds: float = 4.0
    frame_step_seconds: float = 1.0
    unimodal_features: int = 768
    """Of NeuroNet's tokens."""
    unimodal_heads: int = 8
    unimodal_blocks: int = 4
    unimodal_decoder_features: int = 256
    unimodal_decoder_heads: int = 8
    unimodal_decoder_blocks: int = 3
    unimodal_projection: tuple[int, ...] = (1024, 512)
    unimodal_temperature: float = 0.05
    fusion_features: int = 512
    fusion_heads: int = 8
    fusion_blocks: int = 4
    fusion_decoder_features: int = 256
    fusion_decoder_heads: int = 8
    fusion_decoder_blocks: int = 3
    fusion_projection: tuple[int, ...] = (512, 256)
    fusion_temperature: float = 0.1
    head_dropout: float = 0.5
    """In linear probing and in fine-tuning."""
    adaptation_rank: int = 4
    """r, of the LoRA that fine-tuning adds."""
    adaptation_alpha: float = 8.0


@dataclass(frozen=True)
class SynthSleepNetTraining:
    """SynthSleepNet's training protocol."""

    seed: int = 42
    """Fold k uses seed + k."""
    validation_fraction: float = 0.10
    labelled_subjects: int = 50
    """Of the training subjects, those whose scoring may be used; the others serve pretraining alone."""
    unimodal_passes: int = 20
    unimodal_batch: int = 256
    """Epochs of a step of NeuroNet."""
    unimodal_mask_ratio: float = 0.8
    multimodal_passes: int = 100
    multimodal_batch: int = 256
    multimodal_mask_ratio: float = 0.4
    accumulation: int = 1
    """Batches whose gradients make one update of pretraining; the contrast is within a batch."""
    pretraining_rate: float = 1e-4
    """Learning rate for an update of 256 epochs, falling to 0 along a cosine; in proportion for others."""
    weight_decay: float = 0.01
    clip_norm: float = 2.0
    contrastive_weight: float = 1.0
    round_nights: int = 100
    """Nights between two states that a killed run can continue from."""
    knn_nights: int = 20
    """Nights of labelled subjects, and as many of validation subjects, on which a pass's network is judged."""
    knn_components: int = 50
    knn_neighbours: int = 5
    probing_passes: int = 100
    """Over the labelled epochs, whose embeddings are computed once."""
    probing_batch: int = 512
    probing_rate: float = 1e-4
    """Learning rate for an update of 256 epochs; in proportion for others."""
    fine_tuning_passes: int = 30
    fine_tuning_batch: int = 32
    """Stretches of consecutive epochs."""
    fine_tuning_accumulation: int = 4
    """Batches whose gradients make one update of fine-tuning."""
    fine_tuning_rate: float = 5e-4
    """Learning rate for an update of 256 stretches, falling to 0 along a cosine; in proportion for others."""
    stretch_epochs: int = 20
    """What the temporal context module sees at once."""
    stretch_step: int = 10
    """Epochs from one training stretch to the next; otherwise stretches do not overlap."""
    validation_nights: int = 50
    """Nights of validation subjects, at most, on which a pass of fine-tuning is judged."""
    frozen_gib: float = 20.0
    """Disk that a fine-tuning may take, while it lasts, for what its frozen convolutions make of these and the labelled
    nights; where that is not enough, they are computed anew in every pass. Published sizes: 0.7 MB an epoch and
    modality."""
    precision: str = "float32"
    """``mixed_bfloat16`` computes products and convolutions in bfloat16 where the processor has it."""


PRESETS = {
    "paper": {},
    "small": {
        "frame_step_seconds": 2.0,
        "unimodal_features": 256,
        "unimodal_blocks": 2,
        "unimodal_decoder_features": 128,
        "unimodal_decoder_blocks": 1,
        "unimodal_projection": (256, 128),
        "unimodal_passes": 5,
        "unimodal_batch": 64,
        "fusion_features": 128,
        "fusion_blocks": 2,
        "fusion_decoder_features": 128,
        "fusion_decoder_blocks": 1,
        "fusion_projection": (128, 64),
        "multimodal_passes": 5,
        "multimodal_batch": 64,
        "pretraining_rate": 2e-3,
        "probing_rate": 1e-3,
        "fine_tuning_passes": 10,
        "fine_tuning_batch": 8,
        "fine_tuning_accumulation": 1,
        "fine_tuning_rate": 2e-2,
    },
    "tiny": {
        "frame_seconds": 3.0,
        "frame_step_seconds": 9.0,
        "unimodal_features": 32,
        "unimodal_heads": 4,
        "unimodal_blocks": 1,
        "unimodal_decoder_features": 32,
        "unimodal_decoder_heads": 4,
        "unimodal_decoder_blocks": 1,
        "unimodal_projection": (32, 16),
        "unimodal_passes": 2,
        "unimodal_batch": 16,
        # Of the few frames, some must stay to be told apart.
        "unimodal_mask_ratio": 0.5,
        "fusion_features": 32,
        "fusion_heads": 4,
        "fusion_blocks": 1,
        "fusion_decoder_features": 32,
        "fusion_decoder_heads": 4,
        "fusion_decoder_blocks": 1,
        "fusion_projection": (32, 16),
        "multimodal_passes": 2,
        "multimodal_batch": 16,
        "pretraining_rate": 1e-2,
        "probing_batch": 16,
        "probing_rate": 2e-2,
        "fine_tuning_passes": 2,
        "fine_tuning_batch": 4,
        "fine_tuning_accumulation": 1,
        "fine_tuning_rate": 5e-2,
    },
}
"""Values of SynthSleepNet's sections, by the preset's name: as published, for two cores, for tests."""

RANGES = {
    "filters": (1, 4096),
    "first_kernel": (1, EPOCH_SAMPLES),
    "first_stride": (1, EPOCH_SAMPLES),
    "block_kernel": (1, EPOCH_SAMPLES),
    "first_pool": (1, EPOCH_SAMPLES),
    "second_pool": (1, EPOCH_SAMPLES),
    "lstm_units": (1, 4096),
    "dropout": (0, 0.99),
    "seed": (0, 2**31),
    "synthetic_seed": (0, 2**31),
    "hours": (0.01, 48),
    "validation_fraction": (0.001, 0.9),
    "batch_nights": (1, 1024),
    "window_epochs": (1, 4096),
    "reconstruction_passes": (0, 100_000),
    "passes": (1, 100_000),
    "learning_rate": (1e-12, 10),
    "adam_beta_1": (0, 0.999999),
    "adam_beta_2": (0, 0.999999),
    "adam_epsilon": (1e-16, 10),
    "clip_norm": (1e-6, 1e9),
    "l2": (0, 1e3),
    "reconstruction_weight": (0, 1e6),
    "frame_seconds": (3, 5),
    "frame_step_seconds": (0.01, 30),
    **{
        f"{part}_{name}": limits
        for part in ("unimodal", "unimodal_decoder", "fusion", "fusion_decoder")
        for name, limits in (("features", (4, 8192)), ("heads", (1, 64)), ("blocks", (1, 64)))
    },
    "unimodal_temperature": (1e-3, 1e3),
    "fusion_temperature": (1e-3, 1e3),
    "labelled_subjects": (1, 1_000_000),
    "unimodal_passes": (1, 100_000),
    "unimodal_batch": (1, 65_536),
    "unimodal_mask_ratio": (0.01, 0.99),
    "multimodal_passes": (1, 100_000),
    "multimodal_batch": (1, 65_536),
    "multimodal_mask_ratio": (0.01, 0.99),
    "accumulation": (1, 65_536),
    "pretraining_rate": (1e-12, 10),
    "weight_decay": (0, 10),
    "contrastive_weight": (0, 1e6),
    "round_nights": (1, 1_000_000),
    "knn_nights": (1, 1_000_000),
    "knn_components": (1, 8192),
    "knn_neighbours": (1, 1000),
    "probing_passes": (1, 100_000),
    "probing_batch": (1, 65_536),
    "probing_rate": (1e-12, 10),
    "head_dropout": (0, 0.99),
    "adaptation_rank": (0, 4096),
    "adaptation_alpha": (1e-6, 1e6),
    "fine_tuning_passes": (1, 100_000),
    "fine_tuning_batch": (1, 65_536),
    "fine_tuning_accumulation": (1, 65_536),
    "fine_tuning_rate": (1e-12, 10),
    "stretch_epochs": (1, 100_000),
    "stretch_step": (1, 100_000),
    "validation_nights": (1, 1_000_000),
    "frozen_gib": (0, 1_000_000),
}
"""What each number may be."""


SETTABLE = ("subjects", "folds", "night_patterns", "channel", "modalities", "scaled")
"""The values of a database that can be set for one run."""


@dataclass(frozen=True)
class Config:
    """Everything one run depends on."""

    database: Database
    model: RecSleepNetConfig | SynthSleepNetConfig = field(default_factory=RecSleepNetConfig)
    training: TrainingConfig | SynthSleepNetTraining = field(default_factory=TrainingConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


def configure(db: str, assignments: Iterable[str] = (), preset: str | None = None) -> Config:
    """The configuration of a run on ``db``, with ``name=value`` assignments applied.

    With one of :data:`PRESETS` it is a run of SynthSleepNet, else of RecSleepNet.

    Raises:
        InputError: unknown database, preset or name, or a value that does not suit the name.
    """
    config = Config(database(db))
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}.")
        sections = {"model": SynthSleepNetConfig, "training": SynthSleepNetTraining}
        values = {
            section: kind(**{name: PRESETS[preset][name] for name in PRESETS[preset] if hasattr(kind, name)})
            for section, kind in sections.items()
        }
        config = dataclasses.replace(config, **values)
    owners = {
        value.name: section.name
        for section in dataclasses.fields(config)
        for value in dataclasses.fields(getattr(config, section.name))
        if section.name != "database" or value.name in SETTABLE
    }
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise InputError(f"--set {assignment!r} is not of the form name=value.")
        if name not in owners:
            near = difflib.get_close_matches(name, owners, n=1)
            hint = f"did you mean {near[0]}?" if near else f"names are {', '.join(owners)}."
            raise InputError(f"--set {name}: config.py has no such value; {hint}")
        section = getattr(config, owners[name])
        value = _parse(name, text, getattr(section, name))
        config = dataclasses.replace(config, **{owners[name]: dataclasses.replace(section, **{name: value})})
    _check(config)
    return config


def _parse(name: str, text: str, default: Any) -> Any:
    """``text`` as a value of the same type as ``default``."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text.title() if isinstance(default, bool) else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(default, float) and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if isinstance(default, tuple) and isinstance(value, (int, float, list)):
        value = tuple(value) if isinstance(value, list) else (value,)
    alike = type(value) is type(default)
    if alike and isinstance(default, tuple):
        kinds = tuple({type(item) for item in default})
        if kinds == (float,):
            value = tuple(float(v) if type(v) is int and abs(v) < 2**53 else v for v in value)
        alike = all(isinstance(item, kinds) for item in value) if kinds else True
    if not alike:
        raise InputError(f"--set {name}={text}: a value such as {default!r} is wanted.")
    return value


def _check(config: Config) -> None:
    """Refuse values that no run could use."""
    for section in (config.database, config.model, config.training, config.synthetic):
        for name, value in dataclasses.asdict(section).items():
            low, high = RANGES.get(name, (None, None))
            if low is not None and not low <= value <= high:
                raise InputError(f"--set {name}={value}: it must lie between {low} and {high}.")
    model, training, database = config.model, config.training, config.database
    if isinstance(training, TrainingConfig):
        if len(training.class_weights) != len(STAGES):
            raise InputError(f"--set class_weights: {len(STAGES)} numbers are wanted, for {', '.join(STAGES)}.")
        if not all(0 < weight < 1e6 for weight in training.class_weights):
            raise InputError("--set class_weights: each must be above 0.")
    if isinstance(model, SynthSleepNetConfig):
        for part in ("unimodal", "unimodal_decoder", "fusion", "fusion_decoder"):
            features, heads = (getattr(model, f"{part}_{name}") for name in ("features", "heads"))
            if features % heads or features % 4:
                raise InputError(f"--set {part}_features={features}: a multiple of 4 and of {part}_heads is wanted.")
        starts = (EPOCH_SECONDS - model.frame_seconds) / model.frame_step_seconds
        for name in ("unimodal_mask_ratio", "multimodal_mask_ratio"):
            if int((int(starts + 1e-9) + 1) * (1 - getattr(training, name))) < 1:
                raise InputError(
                    f"--set {name}={getattr(training, name)}: none of the {int(starts + 1e-9) + 1} frames of an epoch "
                    "would stay visible: lower it or frame_step_seconds."
                )
        for name in ("unimodal_projection", "fusion_projection"):
            if len(getattr(model, name)) != 2 or not all(0 < size < 65_536 for size in getattr(model, name)):
                raise InputError(f"--set {name}: two numbers above 0 are wanted.")
    if training.precision not in ("float32", "mixed_bfloat16"):
        raise InputError(f"--set precision={training.precision}: it is float32 or mixed_bfloat16.")
    if not all(type(subject) is int and subject >= 0 for subject in database.subjects):
        raise InputError("--set subjects: a subject is a number, 0 or above.")
    if len(set(database.subjects)) < len(database.subjects):
        raise InputError("--set subjects: a subject is named twice.")
    if database.folds < 2:
        raise InputError(f"--set folds={database.folds}: it must be 2 or above.")
    if database.subjects and database.folds > len(database.subjects):
        raise InputError(
            f"--set folds={database.folds}: with {len(database.subjects)} subjects it must lie between 2 and that "
            "number."
        )
    names = [pair[0] for pair in database.modalities if len(pair) == 2 and all(isinstance(part, str) for part in pair)]
    if len(names) < len(database.modalities) or len(set(names)) < len(names) or not set(names) <= set(MODALITIES):
        raise InputError(f"--set modalities: pairs such as ('eeg', 'C3-A2') are wanted, of {', '.join(MODALITIES)}.")
    if not database.night_patterns:
        raise InputError("--set night_patterns: at least one file name is wanted.")
    for pattern in database.night_patterns:
        if not NIGHT_PATTERN.fullmatch(pattern):
            raise InputError(f"--set night_patterns: {pattern!r} is not a file name with {{subject}} in it.")
