"""One specification per sleep database: who is in it, its files, its channels, its scoring, its published results."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data.terms import InputError

NIGHT_PATTERN = re.compile(r"[^/\\\0{}]*\{subject(:0\dd)?\}[^/\\\0{}]*")
"""What a night pattern may be: nothing that makes ``format`` fail or leads ``glob`` out of a folder."""


def plain(name: str) -> str:
    """A channel's name without what differs between spellings: case, spaces and underscores."""
    return re.sub(r"[\s_]", "", name).casefold()


@dataclass(frozen=True)
class ChannelSpec:
    """A channel of a night file: its name, other names that recordings give it, and its band-pass in Hz, if any.

    Example:

    >>> ChannelSpec("C4-M1", ("EEG C4-A1",)).find(["EOG", "eeg c4-a1"])
    'eeg c4-a1'
    """

    name: str
    spellings: tuple[str, ...] = ()
    band: tuple[float, float] | None = None

    def find(self, names: Sequence[str]) -> str | None:
        """The one of ``names`` that is this channel, or None; case, spaces and underscores make no difference."""
        known = {plain(name): name for name in reversed(names)}
        return next((known[plain(s)] for s in (self.name, *self.spellings) if plain(s) in known), None)


@dataclass(frozen=True)
class Published:
    """A published result to print beside ours: the model's name, its figures from 0 to 1, and the task.

    ``about`` says how it differs from the other results, if it does.
    """

    model: str
    accuracy: float
    macro_f1: float | None = None
    kappa: float | None = None
    task: str = "sleep_stage"
    about: str = ""


@dataclass(frozen=True)
class Database:
    """One sleep database.

    Attributes:
        db: its name on the command line.
        title: its name in print.
        subjects: the subjects' numbers; empty where everybody with night files is a subject.
        folds: the number of folds of the cross-validation.
        night_patterns: names of one subject's night files; ``{subject}`` stands for the subject's number.
        channel: the night files' channel that RecSleepNet stages; empty where the user must name it.
        modalities: each modality that SynthSleepNet may take, followed by the night files' channels of that modality,
            the preferred one first.
        published: published results; they are of a single EEG channel unless they say otherwise.
        assumption: what is assumed, because it was not published, about the numbering of the subjects in the published
            folds; empty where nothing is.
        recording: regular expression of a recording's file name. Its groups, and ``name`` for the file's name without
            suffix, fill in the templates below. Empty for synthetic nights.
        example: a recording's file name, for messages.
        night: template of a night's name.
        scoring: templates, with wildcards, of the file names of each part of the scoring, the preferred one first.
        optional: the parts of the scoring that may be missing.
        form: how the scoring is written; see :mod:`data.scorings`.
        rules: what reading the form ``table`` needs besides: labels, events and columns.
        channels: what preparation takes unless ``--select_ch`` says otherwise.
        first_subject: the number that recordings' names give to the subject who is number 0 in nights' names.
        subject: regular expression for the recording's path, whose first group is the subject's number, if
            ``recording`` has no group for it. Without either, each recording is a subject, numbered in their order.
        as_stored: whether voltages stay in the recording's own unit instead of becoming µV.
        scaled: whether preparation scales each channel by its median and quartiles.
        whole: whether preparation keeps whole nights: no wake is trimmed, epochs without a stage stay in.
        details: the custom specification as the user wrote it, which is kept with each night.
    """

    db: str
    title: str
    subjects: tuple[int, ...] = ()
    folds: int = 10
    night_patterns: tuple[str, ...] = ()
    channel: str = ""
    modalities: tuple[tuple[str, ...], ...] = ()
    published: tuple[Published, ...] = ()
    assumption: str = ""
    recording: str = ""
    example: str = ""
    night: str = ""
    scoring: dict[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    form: str = ""
    rules: dict[str, Any] = field(default_factory=dict)
    channels: tuple[ChannelSpec, ...] = ()
    first_subject: int = 0
    subject: str = ""
    as_stored: bool = False
    scaled: bool = False
    whole: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def streams(self, modality: str) -> dict[str, str]:
        """The channels of a modality by the names of their streams: eeg for the first, then eeg2, eeg3 and so on."""
        channels = {first: others for first, *others in self.modalities}[modality]
        return {f"{modality}{number if number > 1 else ''}": name for number, name in enumerate(channels, 1)}

    def chosen(self, names: Sequence[str] = ()) -> tuple[ChannelSpec, ...]:
        """The channels called ``names`` by any spelling, else the database's own; InputError if one is named twice."""
        known = {plain(name): c for c in reversed(self.channels) for name in (c.name, *c.spellings)}
        chosen = [known.get(plain(name), ChannelSpec(name)) for name in names]
        if len({plain(channel.name) for channel in chosen}) < len(chosen):
            raise InputError("--select_ch names one channel twice: name it once.")
        return tuple(chosen) or self.channels


_SLEEP_EDF_20 = Database(
    db="sleepedf",
    title="Sleep-EDF-20",
    subjects=tuple(range(20)),
    folds=20,
    night_patterns=("SC4{subject:02d}*.npz", "ST7{subject:02d}*.npz"),
    channel="EEG Fpz-Cz",
    published=(
        Published("TinySleepNet", 0.854, 0.805, 0.80),
        Published("AttnSleep", 0.844, 0.781, 0.79),
        Published("XSleepNet2", 0.864, 0.809, 0.81, about="of EEG and EOG"),
    ),
    # The scoring of the cassette night SC4ssNxx is called SC4ssN followed by two other letters.
    recording=r"(?P<night>(?P<id>SC4(?P<subject>\d\d)\d)\w\d)-PSG\.edf",
    example="SC4001E0-PSG.edf",
    night="{night}",
    scoring={"hypnogram": ("{id}??-Hypnogram.edf",)},
    form="sleepedf",
    channels=(ChannelSpec("EEG Fpz-Cz", ("Fpz-Cz",)),),
)
_SLEEP_EDF_78 = replace(
    _SLEEP_EDF_20,
    db="sleepedfx",
    title="Sleep-EDF-78",
    subjects=tuple(s for s in range(83) if s not in (39, 68, 69, 78, 79)),
    folds=10,
    published=(
        Published("TinySleepNet", 0.831, 0.781, 0.77),
        Published("AttnSleep", 0.813, 0.751, 0.74),
        Published("XSleepNet2", 0.840, 0.787, 0.78, about="of EEG and EOG"),
    ),
)
_ISRUC = Database(
    db="isruc",
    title="ISRUC-Sleep",
    subjects=tuple(range(99)),
    night_patterns=("subject{subject}.npz",),
    channel="C3-A2",
    assumption="it is assumed that recording N is subject N - 1",
    recording=r"(?P<subject>\d+)\.(rec|edf)",
    example="1.rec",
    night="subject{subject}",
    scoring={"stages": ("{subject}_1.txt",)},
    form="isruc",
    channels=(ChannelSpec("C3-A2", ("C3-M2",)),),
    first_subject=1,
)
_UCDDB = Database(
    db="ucddb",
    title="St. Vincent's / UCD Sleep Apnea Database",
    subjects=(2, 3, *range(5, 16), *range(17, 29)),
    folds=25,
    night_patterns=("ucddb{subject:03d}.npz",),
    channel="C3A2",
    recording=r"ucddb(?P<subject>\d{3})\.(rec|edf)",
    example="ucddb002.rec",
    night="ucddb{subject:03d}",
    scoring={"stages": ("ucddb{subject:03d}_stage.txt",), "events": ("ucddb{subject:03d}_respevt.txt",)},
    optional=("events",),
    form="ucddb",
    channels=(ChannelSpec("C3A2", ("C3-A2",)),),
    as_stored=True,
)
_FINE_TUNED = "fine-tuned; chosen by its test subjects"
_FEW_LABELS = "with few labels; chosen by its test subjects"
_SHHS = Database(
    db="shhs",
    title="Sleep Heart Health Study",
    # SynthSleepNet's published parser names a night by the number alone.
    night_patterns=("shhs1-{subject:06d}.npz", "{subject:06d}.npz"),
    channel="EEG_C4",
    modalities=(
        ("eeg", "EEG_C4", "EEG_C3"),
        ("eog", "EOG_Left", "EOG_Right"),
        ("emg", "EMG_Chin"),
        ("ecg", "ECG"),
        ("airflow", "Airflow"),
    ),
    # Lee et al., arXiv:2502.17481.
    published=(
        Published("SynthSleepNet", 0.8989, about=_FINE_TUNED),
        Published("SynthSleepNet", 0.8798, about=_FEW_LABELS),
        Published("SynthSleepNet", 0.9975, task="apnea", about=_FINE_TUNED),
        Published("SynthSleepNet", 0.9937, task="apnea", about=_FEW_LABELS),
        Published("SynthSleepNet", 0.8960, task="hypopnea", about=_FINE_TUNED),
        Published("SynthSleepNet", 0.7752, task="hypopnea", about=_FEW_LABELS),
    ),
    recording=r"shhs\d-(?P<subject>\d{6})\.edf",
    example="shhs1-200001.edf",
    night="{name}",
    scoring={"stages": ("{name}-nsrr.xml", "{name}-profusion.xml")},
    form="nsrr",
    # The names that SynthSleepNet's published parser gives. SHHS records C4-A1 as EEG and C3-A2 as the second EEG.
    channels=(
        ChannelSpec("EEG_C4", ("EEG", "EEG1", "EEG(1)", "C4-A1"), (0.5, 40)),
        ChannelSpec("EEG_C3", ("EEG(sec)", "EEGsec", "EEG2", "EEG(2)", "C3-A2"), (0.5, 40)),
        ChannelSpec("EOG_Left", ("EOG(L)", "EOGL", "EOG Left"), (0.5, 40)),
        ChannelSpec("EOG_Right", ("EOG(R)", "EOGR", "EOG Right"), (0.5, 40)),
        ChannelSpec("EMG_Chin", ("EMG", "EMG(chin)"), (25, 49)),
        ChannelSpec("ECG", ("EKG", "ECG1"), (3, 30)),
        ChannelSpec("Airflow", ("AIRFLOW", "NEW AIR", "NEW AIRFLOW", "NEW A/F", "AIR FLOW"), (0.05, 1)),
    ),
    scaled=True,
    whole=True,
)
_SYNTHETIC = Database(
    db="synthetic",
    title="Synthetic nights",
    subjects=tuple(range(10)),
    folds=5,
    night_patterns=("synthetic{subject:02d}.npz",),
    channel="EEG C4-M1",
    modalities=(
        ("eeg", "EEG C4-M1"),
        ("eog", "EOG L", "EOG R"),
        ("emg", "EMG"),
        ("ecg", "ECG"),
        ("airflow", "Airflow"),
    ),
)
_CUSTOM = Database(
    db="custom",
    title="Your own recordings",
    night_patterns=("subject{subject}_*.npz",),
    night="subject{subject}_{name}",
)

DATABASES = {db.db: db for db in (_SLEEP_EDF_20, _SLEEP_EDF_78, _ISRUC, _UCDDB, _SHHS, _SYNTHETIC, _CUSTOM)}

ALIASES = {"isurc": "isruc"}
"""Misspellings that users may know: the published README writes ``isurc``."""


def database(name: str) -> Database:
    """The database called ``name``, or the one that ``name`` is an alias of; InputError if there is none."""
    name = ALIASES.get(name, name)
    if name not in DATABASES:
        near = difflib.get_close_matches(name, DATABASES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(DATABASES)}."
        raise InputError(f"unknown database {name!r}: {hint}")
    return DATABASES[name]
