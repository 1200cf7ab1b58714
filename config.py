"""Every value a user may want to change, with the published defaults.

Edit this file, or change single values for one run: ``trainer.py --set learning_rate=3e-4 --set passes=20``.
"""

import ast
import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

STAGES = ("W", "N1", "N2", "N3", "REM")
"""The five AASM classes; a night's labels are positions in this tuple."""

EVENTS = ("Obstructive Apnea", "Central Apnea", "Mixed Apnea", "Hypopnea", "SpO2 Desaturation")
"""Breathing events of multi-channel nights, 0 or 1 for each epoch."""

EPOCH_SECONDS = 30
SAMPLING_RATE = 100
"""Hz, of every night file."""
EPOCH_SAMPLES = EPOCH_SECONDS * SAMPLING_RATE


class InputError(ValueError):
    """A mistake in what the user gave, told in one sentence: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class DatasetSpec:
    """One sleep database: who is in it, how its night files are named, how it is cross-validated."""

    db: str
    title: str
    subjects: tuple[int, ...]
    """Empty: whoever has night files."""
    folds: int
    night_patterns: tuple[str, ...]
    """File-name patterns of one subject's nights; ``{subject}`` is replaced by the subject's number."""
    channel: str
    """Channel staged when a night file holds several; empty: it must be set."""
    published: tuple[tuple[str, float, float, float], ...] = ()
    """Published single-channel results to print beside ours: model, accuracy, macro-F1, kappa."""


DATASETS = {
    spec.db: spec
    for spec in (
        DatasetSpec(
            db="sleepedf",
            title="Sleep-EDF-20",
            subjects=tuple(range(20)),
            folds=20,
            night_patterns=("SC4{subject:02d}*.npz", "ST7{subject:02d}*.npz"),
            channel="EEG Fpz-Cz",
            published=(
                ("TinySleepNet", 0.854, 0.805, 0.80),
                ("AttnSleep", 0.844, 0.781, 0.79),
                ("XSleepNet2", 0.864, 0.809, 0.81),
            ),
        ),
        DatasetSpec(
            db="sleepedfx",
            title="Sleep-EDF-78",
            subjects=tuple(s for s in range(83) if s not in (39, 68, 69, 78, 79)),
            folds=10,
            night_patterns=("SC4{subject:02d}*.npz", "ST7{subject:02d}*.npz"),
            channel="EEG Fpz-Cz",
            published=(
                ("TinySleepNet", 0.831, 0.781, 0.77),
                ("AttnSleep", 0.813, 0.751, 0.74),
                ("XSleepNet2", 0.840, 0.787, 0.78),
            ),
        ),
        DatasetSpec(
            db="isruc",
            title="ISRUC-Sleep",
            subjects=tuple(range(99)),
            folds=10,
            night_patterns=("subject{subject}.npz",),
            channel="C3-A2",
        ),
        DatasetSpec(
            db="ucddb",
            title="St. Vincent's / UCD Sleep Apnea Database",
            subjects=(2, 3, *range(5, 16), *range(17, 29)),
            folds=25,
            night_patterns=("ucddb{subject:03d}.npz",),
            channel="C3A2",
        ),
        DatasetSpec(
            db="synthetic",
            title="Synthetic nights",
            subjects=tuple(range(10)),
            folds=5,
            night_patterns=("synthetic{subject:02d}.npz",),
            channel="EEG C4-M1",
        ),
        DatasetSpec(
            db="custom",
            title="Your own recordings",
            subjects=(),
            folds=10,
            night_patterns=("subject{subject}_*.npz",),
            channel="",
        ),
    )
}

ALIASES = {"isurc": "isruc"}
"""Spellings in circulation: the published README writes ``isurc``."""


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
}
"""What each number may be."""


@dataclass(frozen=True)
class Config:
    """Everything one run depends on."""

    dataset: DatasetSpec
    model: RecSleepNetConfig = field(default_factory=RecSleepNetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


def dataset_spec(name: str) -> DatasetSpec:
    """The spec of the database called ``name``, or of the one it is an alias of.

    Raises:
        InputError: no database has that name.
    """
    name = ALIASES.get(name, name)
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(DATASETS)}."
        raise InputError(f"unknown database {name!r}: {hint}")
    return DATASETS[name]


def configure(db: str, assignments: Iterable[str] = ()) -> Config:
    """The configuration of a run on ``db``, with ``name=value`` assignments applied.

    Raises:
        InputError: unknown database or name, or a value that does not suit the name.
    """
    config = Config(dataset_spec(db))
    owners = {
        value.name: section.name
        for section in dataclasses.fields(config)
        for value in dataclasses.fields(getattr(config, section.name))
        if value.name not in ("db", "title", "published")
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
    for section in (config.dataset, config.model, config.training, config.synthetic):
        for name, value in dataclasses.asdict(section).items():
            low, high = RANGES.get(name, (None, None))
            if low is not None and not low <= value <= high:
                raise InputError(f"--set {name}={value}: it must lie between {low} and {high}.")
    training, dataset = config.training, config.dataset
    if len(training.class_weights) != len(STAGES):
        raise InputError(f"--set class_weights: {len(STAGES)} numbers are wanted, for {', '.join(STAGES)}.")
    if not all(0 < weight < 1e6 for weight in training.class_weights):
        raise InputError("--set class_weights: each must be above 0.")
    if training.precision not in ("float32", "mixed_bfloat16"):
        raise InputError(f"--set precision={training.precision}: it is float32 or mixed_bfloat16.")
    if not all(type(subject) is int and subject >= 0 for subject in dataset.subjects):
        raise InputError("--set subjects: a subject is a number, 0 or above.")
    if len(set(dataset.subjects)) < len(dataset.subjects):
        raise InputError("--set subjects: a subject is named twice.")
    if dataset.folds < 2:
        raise InputError(f"--set folds={dataset.folds}: it must be 2 or above.")
    if dataset.subjects and dataset.folds > len(dataset.subjects):
        raise InputError(
            f"--set folds={dataset.folds}: with {len(dataset.subjects)} subjects it must lie between 2 and that number."
        )
    if not dataset.night_patterns:
        raise InputError("--set night_patterns: at least one file name is wanted.")
    for pattern in dataset.night_patterns:
        # What format() could trip over, or glob() follow out of the folder.
        if not re.fullmatch(r"[^/\\\0{}]*\{subject(:0\dd)?\}[^/\\\0{}]*", pattern):
            raise InputError(f"--set night_patterns: {pattern!r} is not a file name with {{subject}} in it.")
