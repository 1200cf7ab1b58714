"""One declarative spec per database: how its recordings and scorings are named, which channels are taken, and how."""

import fnmatch
import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from config import DATASETS, InputError
from data.prepare import isruc, nsrr, sleepedf, ucddb
from data.prepare.recording import Recording
from data.prepare.scoring import Scoring
from data.store import files_below

ScoringReader = Callable[[dict[str, Path], Recording], Scoring]


@dataclass(frozen=True)
class ChannelSpec:
    """A channel of the night file: its name there, its spellings in recordings, and its band-pass in Hz, if any."""

    name: str
    spellings: tuple[str, ...] = ()
    band: tuple[float, float] | None = None

    def find(self, names: Sequence[str]) -> str | None:
        """The one of ``names`` that is this channel, or None; case, spaces and underscores make no difference."""
        known = {plain(name): name for name in reversed(names)}
        return next((known[plain(s)] for s in (self.name, *self.spellings) if plain(s) in known), None)


def plain(name: str) -> str:
    """A channel's name without what differs between spellings."""
    return re.sub(r"[\s_]", "", name).casefold()


@dataclass(frozen=True)
class RecordingSpec:
    """How one database's recordings become nights.

    Attributes:
        db: its name on the command line.
        recording: regular expression of a recording's file name; its groups, and ``name`` for the file's name without
            suffix, fill in the templates below.
        night: template of the night's name.
        scoring: file names of each part of the scoring, as templates with wildcards, in order of preference.
        read_scoring: reads the files found, by part.
        channels: what is taken unless ``--select_ch`` says otherwise.
        first_subject: the number in file names of the subject that is 0 in the nights' names.
        subject: where it is not a group of ``recording``: regular expression of the recording's path below the folder,
            its first group the subject's number; if empty, recordings count as subjects, in their order.
        optional: parts of the scoring that may be missing.
        as_stored: voltages stay in the recording's own unit.
        details: what else a custom spec says, kept with each night.
        multimodal: each channel is centred on its median and divided by its interquartile range over the night.
    """

    db: str
    recording: str
    night: str
    scoring: dict[str, tuple[str, ...]]
    read_scoring: ScoringReader
    channels: tuple[ChannelSpec, ...]
    first_subject: int = 0
    subject: str = ""
    optional: tuple[str, ...] = ()
    as_stored: bool = False
    multimodal: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def chosen(self, names: Sequence[str] = ()) -> tuple[ChannelSpec, ...]:
        """The channels called ``names`` by any spelling; the spec's own without names."""
        chosen = []
        for name in names:
            known = (c for c in self.channels if plain(name) in map(plain, (c.name, *c.spellings)))
            chosen.append(next(known, ChannelSpec(name)))
        if len({plain(channel.name) for channel in chosen}) < len(chosen):
            raise InputError("--select_ch names a channel twice.")
        return tuple(chosen) or self.channels


@dataclass(frozen=True)
class Source:
    """One recording with the files of its scoring, by part; or the problem, in a sentence, that leaves it unusable."""

    night: str
    recording: Path
    scoring: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


_SLEEP_EDF = {
    # Of cassette night SC4ssNxx the scoring is SC4ssN with other last letters.
    "recording": r"(?P<night>(?P<id>SC4(?P<subject>\d\d)\d)\w\d)-PSG\.edf",
    "night": "{night}",
    "scoring": {"hypnogram": ("{id}??-Hypnogram.edf",)},
    "read_scoring": sleepedf.read_scoring,
    "channels": (ChannelSpec("EEG Fpz-Cz", ("Fpz-Cz",)),),
}

SPECS = {
    spec.db: spec
    for spec in (
        RecordingSpec(db="sleepedf", **_SLEEP_EDF),
        RecordingSpec(db="sleepedfx", **_SLEEP_EDF),
        RecordingSpec(
            db="isruc",
            recording=r"(?P<subject>\d+)\.(rec|edf)",
            night="subject{subject}",
            scoring={"stages": ("{subject}_1.txt",)},
            read_scoring=isruc.read_scoring,
            channels=(ChannelSpec("C3-A2", ("C3-M2",)),),
            first_subject=1,
        ),
        RecordingSpec(
            db="ucddb",
            recording=r"ucddb(?P<subject>\d{3})\.(rec|edf)",
            night="ucddb{subject:03d}",
            scoring={"stages": ("ucddb{subject:03d}_stage.txt",), "events": ("ucddb{subject:03d}_respevt.txt",)},
            read_scoring=ucddb.read_scoring,
            channels=(ChannelSpec("C3A2", ("C3-A2",)),),
            optional=("events",),
            as_stored=True,
        ),
        RecordingSpec(
            db="shhs",
            recording=r"shhs\d-(?P<subject>\d{6})\.edf",
            night="{name}",
            scoring={"stages": ("{name}-nsrr.xml", "{name}-profusion.xml")},
            read_scoring=nsrr.read_scoring,
            # Names as SynthSleepNet's users have them. SHHS records C4-A1 as EEG and C3-A2 as the second EEG.
            channels=(
                ChannelSpec("EEG_C4", ("EEG", "EEG1", "EEG(1)", "C4-A1"), (0.5, 40)),
                ChannelSpec("EEG_C3", ("EEG(sec)", "EEGsec", "EEG2", "EEG(2)", "C3-A2"), (0.5, 40)),
                ChannelSpec("EOG_Left", ("EOG(L)", "EOGL", "EOG Left"), (0.5, 40)),
                ChannelSpec("EOG_Right", ("EOG(R)", "EOGR", "EOG Right"), (0.5, 40)),
                ChannelSpec("EMG_Chin", ("EMG", "EMG(chin)"), (25, 49)),
                ChannelSpec("ECG", ("EKG", "ECG1"), (3, 30)),
                ChannelSpec("Airflow", ("AIRFLOW", "NEW AIR", "NEW AIRFLOW", "NEW A/F", "AIR FLOW"), (0.05, 1)),
            ),
            multimodal=True,
        ),
    )
}


TABLE = "nights.csv"
"""What preparation writes beside the nights; never a scoring."""


def find_sources(spec: RecordingSpec, folder: Path) -> list[Source]:
    """The recordings of ``spec`` anywhere below ``folder``, by path, each with its scoring or its problem.

    Raises:
        InputError: there is no such folder, or no recording in it.
    """
    files = [path for path in files_below(folder) if path.name != TABLE]
    found = [(path, match) for path in files if (match := re.fullmatch(spec.recording, path.name, re.IGNORECASE))]
    listing = _Listing(files, {path.stem for path, _ in found})
    subjects = DATASETS[spec.db].subjects if spec.db in DATASETS else ()
    sources: dict[str, Source] = {}
    outside = []
    for path, match in found:
        groups: dict[str, str | int] = {**match.groupdict(), "name": path.stem}
        number = _subject(spec, path, folder, groups, len(sources))
        if subjects and number not in subjects:
            outside.append(path.name)
            continue
        night = spec.night.format(**{**groups, "subject": number})
        groups["subject"] = number + spec.first_subject
        if night in sources:
            problem = f"{path} and {sources[night].recording} are both night {night}: keep one of them."
            sources[f"{night} ({path})"] = Source(night, path, problem=problem)
        else:
            sources[night] = _with_scoring(spec, night, path, groups, listing)
    if not found:
        raise InputError(f"{folder} holds no recording of {spec.db}: {_example(spec)} is looked for.")
    if outside:
        print(
            f"{len(outside)} recordings in {folder}, such as {outside[0]}, are of subjects outside {spec.db}'s "
            f"{subjects[0]} to {subjects[-1]}, and are left out."
        )
    return _each_scoring_once(list(sources.values()))


def _each_scoring_once(sources: list[Source]) -> list[Source]:
    """``sources``, of which those that share a scoring with another have that as their problem."""
    users: dict[Path, list[Source]] = {}
    for source in sources:
        for path in source.scoring.values():
            users.setdefault(path, []).append(source)
    shared = {}
    for path, sharing in users.items():
        if len(sharing) > 1:
            problem = f"{path} would be the scoring of {sharing[0].recording} and of {sharing[1].recording}: "
            shared |= {source.recording: problem + "name each recording's scoring after it." for source in sharing}
    return [
        replace(source, scoring={}, problem=shared[source.recording]) if source.recording in shared else source
        for source in sources
    ]


class _Listing:
    """The files below a folder, by name, and the stems of the recordings among them."""

    def __init__(self, files: Sequence[Path], stems: set[str]) -> None:
        self.by_name: dict[str, list[Path]] = {}
        for path in files:
            self.by_name.setdefault(path.name, []).append(path)
        self.stems = stems

    def matching(self, pattern: str, stem: str) -> list[Path]:
        """The files of a name like ``pattern``, less those that a longer recording's name claims."""
        if not glob.has_magic(pattern):
            return self.by_name.get(pattern, [])
        longer = [other for other in self.stems if other != stem and other.startswith(stem)]
        names = [name for name in fnmatch.filter(self.by_name, pattern) if not name.startswith(tuple(longer))]
        return [path for name in names for path in self.by_name[name]]


def _subject(spec: RecordingSpec, path: Path, folder: Path, groups: dict[str, str | int], position: int) -> int:
    """The number of the recording's subject."""
    if "subject" in groups:
        return int(groups["subject"]) - spec.first_subject
    if not spec.subject:
        return position
    below = str(path).removeprefix(str(folder)).lstrip("/")
    found = re.search(spec.subject, below)
    if not found or not found[1] or not found[1].isdecimal():
        raise InputError(f"{path}: the spec's subject, {spec.subject!r}, finds no number in {below}.")
    return int(found[1])


def _with_scoring(
    spec: RecordingSpec, night: str, recording: Path, groups: dict[str, str | int], listing: _Listing
) -> Source:
    files: dict[str, Path] = {}
    escaped = {key: glob.escape(value) if isinstance(value, str) else value for key, value in groups.items()}
    for part, templates in spec.scoring.items():
        for template in templates:
            found = [path for path in listing.matching(template.format(**escaped), recording.stem) if path != recording]
            # Names may repeat in other folders: the recording's own folder comes first, and alone where the name of
            # the scoring does not say whose it is.
            beside = [path for path in found if path.parent == recording.parent]
            found = beside if beside or "{" not in template else found
            if len(found) > 1:
                problem = f"{recording} has two scorings, {found[0]} and {found[1]}: keep one of them."
                return Source(night, recording, problem=problem)
            if found:
                files[part] = found[0]
                break
        else:
            if part not in spec.optional:
                names = " or ".join(template.format(**groups) for template in templates)
                return Source(night, recording, problem=f"{recording} has no scoring: {names} is not there.")
    return Source(night, recording, files)


def _example(spec: RecordingSpec) -> str:
    names = {
        "sleepedf": "SC4001E0-PSG.edf",
        "sleepedfx": "SC4001E0-PSG.edf",
        "isruc": "1.rec",
        "ucddb": "ucddb002.rec",
        "shhs": "shhs1-200001.edf",
    }
    return f"a name like {names[spec.db]}" if spec.db in names else "what the spec calls recordings"
