"""Recordings and scorings as each database writes them, for the tests: real EDF files, made with edfio."""

from datetime import date, datetime, time
from pathlib import Path

import edfio
import numpy as np

START = datetime(1995, 6, 1, 23, 10, 30)


def wave(seconds: float, rate: float, channel: int = 0) -> np.ndarray:
    """A signal known at every instant: three slow tones, in hundreds of units, different for each channel."""
    t = np.arange(round(seconds * rate)) / rate
    shift = channel + 1
    return (
        40 * np.sin(2 * np.pi * 1.3 * t + shift)
        + 25 * np.sin(2 * np.pi * (4.1 + 0.2 * channel) * t)
        + 15 * np.sin(2 * np.pi * 0.7013 * t + 2 * shift)
    )


def write_edf(
    path: Path,
    signals: dict[str, tuple[np.ndarray, float, str]],
    record_seconds: float = 1,
    start: datetime = START,
    span: float = 200,
    annotations: list[tuple[float, float, str]] | None = None,
) -> Path:
    """Write channels given as (samples, rate, unit); ``span`` is the physical range to either side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    edf = edfio.Edf(
        [
            edfio.EdfSignal(data, rate, label=name, physical_dimension=unit, physical_range=(-span, span))
            for name, (data, rate, unit) in signals.items()
        ],
        recording=edfio.Recording(startdate=date(start.year, start.month, start.day)),
        starttime=time(start.hour, start.minute, start.second),
        data_record_duration=record_seconds,
        annotations=None
        if annotations is None
        else [edfio.EdfAnnotation(onset, duration, text) for onset, duration, text in annotations],
    )
    # edfio goes by the name's ending.
    named = path.with_suffix(".edf")
    edf.write(named)
    return named.rename(path)


def write_hypnogram(path: Path, entries: list[tuple[float, float, str]], start: datetime = START) -> Path:
    """An EDF+ file of annotations alone."""
    edf = edfio.Edf(
        [],
        recording=edfio.Recording(startdate=date(start.year, start.month, start.day)),
        starttime=time(start.hour, start.minute, start.second),
        annotations=[edfio.EdfAnnotation(onset, duration, text) for onset, duration, text in entries],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    edf.write(path)
    return path


def runs(codes: list[str], names: dict[str, str]) -> list[tuple[float, float, str]]:
    """Annotations of a code per epoch, equal neighbours in one, as Sleep-EDF writes them."""
    entries, first = [], 0
    for i in range(1, len(codes) + 1):
        if i == len(codes) or codes[i] != codes[first]:
            entries.append((30.0 * first, 30.0 * (i - first), names[codes[first]]))
            first = i
    return entries


SLEEP_EDF_NAMES = {c: f"Sleep stage {c}" for c in "W1234R?"} | {"M": "Movement time"}


def sleepedf(folder: Path, codes: str, night: str = "SC4001E0", extra: float = 0, record_seconds: float = 30) -> Path:
    """A Sleep-EDF night of 100-Hz EEG and a 1-Hz channel; ``codes`` are W, 1-4, R, M and ?."""
    seconds = 30 * len(codes) + extra
    write_hypnogram(folder / f"{night[:7]}C-Hypnogram.edf", runs(list(codes), SLEEP_EDF_NAMES))
    return write_edf(
        folder / f"{night}-PSG.edf",
        {
            "EEG Fpz-Cz": (wave(seconds, 100), 100, "uV"),
            "EEG Pz-Oz": (wave(seconds, 100, 1), 100, "uV"),
            "Temp rectal": (wave(seconds, 1, 2), 1, "DegC"),
        },
        record_seconds,
    )


def isruc(folder: Path, codes: str, number: int = 1, rate: float = 200, name: str = "C3-A2", unit: str = "uV") -> Path:
    """An ISRUC night: ``codes`` are 0, 1, 2, 3 and 5."""
    folder = folder / str(number)
    seconds = 30 * len(codes)
    path = write_edf(
        folder / f"{number}.rec",
        {
            "LOC-A2": (wave(seconds, rate, 1), rate, unit),
            name: (wave(seconds, rate), rate, unit),
            "SaO2": (50 + wave(seconds, 12.5, 3), 12.5, "%"),
        },
        2,  # s a record: 12.5 Hz gives no whole number in one
    )
    (folder / f"{number}_1.txt").write_text("\n".join(codes) + "\n\n")
    return path


RESPEVT_HEAD = (
    "                     ucddb{0:03d}\n\nTime      Type      PB/CS  Duration  Low  %Drop  Snore  Arousal\n\n"
)


def ucddb(folder: Path, codes: str, number: int = 2, events: list[str] | None = None) -> Path:
    """A UCDDB night at 128 Hz with an 8-Hz channel, in mV; ``codes`` are 0 to 8, ``events`` rows of the table."""
    seconds = 30 * len(codes)
    (folder).mkdir(parents=True, exist_ok=True)
    (folder / f"ucddb{number:03d}_stage.txt").write_text("".join(f"{code}\r\n" for code in codes))
    if events is not None:
        (folder / f"ucddb{number:03d}_respevt.txt").write_text(
            RESPEVT_HEAD.format(number) + "".join(row + "\n" for row in events)
        )
    return write_edf(
        folder / f"ucddb{number:03d}.rec",
        {
            "Lefteye": (wave(seconds, 64, 1), 64, "mV"),
            "C3A2": (wave(seconds, 128), 128, "mV"),
            "SpO2": (50 + wave(seconds, 8, 2), 8, "%"),
        },
    )


SHHS_CHANNELS = {
    "SaO2": (1, "%"),
    "EEG(sec)": (125, "uV"),
    "ECG": (125, "mV"),
    "EMG": (125, "uV"),
    "EOG(L)": (50, "uV"),
    "EOG(R)": (50, "uV"),
    "EEG": (125, "uV"),
    "NEW AIR": (10, ""),
}


def shhs(
    folder: Path,
    codes: str,
    number: int = 200001,
    events: list[tuple[str, float, float]] = (),
    form: str = "typed",
    rng: np.random.Generator | None = None,
) -> Path:
    """An SHHS night; ``codes`` are 0-6 and 9, ``events`` (name, start, duration), ``form`` typed or profusion."""
    seconds = 30 * len(codes)
    rng = rng or np.random.default_rng(number)
    path = write_edf(
        folder / "edfs" / f"shhs1-{number}.edf",
        {
            name: ((rng.normal(0, 20, round(seconds * rate)) + wave(seconds, rate, i)), rate, unit)
            for i, (name, (rate, unit)) in enumerate(SHHS_CHANNELS.items())
        },
    )
    annotations = folder / "annotations"
    annotations.mkdir(exist_ok=True)
    if form == "typed":
        (annotations / f"shhs1-{number}-nsrr.xml").write_text(typed_xml(codes, events))
    else:
        (annotations / f"shhs1-{number}-profusion.xml").write_text(profusion_xml(codes, events))
    return path


IN_SHHS = {
    "EEG C4-M1": ("EEG", "uV"),
    "EOG L": ("EOG(L)", "uV"),
    "EMG": ("EMG", "uV"),
    "ECG": ("ECG", "uV"),
    "Airflow": ("NEW AIR", ""),
}
"""What SHHS calls the channels of synthetic nights, and their units."""


def as_shhs(folder: Path, number: int, night: dict[str, np.ndarray]) -> Path:
    """A synthetic night as SHHS writes it: an EDF and typed XML, whose events fill their epochs but for 5 s."""
    names = night["ch_names"].tolist()
    signals = {
        ours: (night["x"][:, names.index(name)].ravel().astype(float), 100, unit)
        for name, (ours, unit) in IN_SHHS.items()
    }
    path = write_edf(folder / "edfs" / f"shhs1-{number}.edf", signals, span=2000)
    events = [
        (name, 30.0 * epoch + 5, 20.0)
        for name, there in zip(night["event_names"].tolist(), night["events"].T, strict=True)
        for epoch in np.flatnonzero(there)
    ]
    annotations = folder / "annotations"
    annotations.mkdir(exist_ok=True)
    codes = "".join(map(str, np.array([0, 1, 2, 3, 5])[night["y"]]))
    (annotations / f"shhs1-{number}-nsrr.xml").write_text(typed_xml(codes, events))
    return path


STAGE_NAMES = {
    "0": "Wake|0",
    "1": "Stage 1 sleep|1",
    "2": "Stage 2 sleep|2",
    "3": "Stage 3 sleep|3",
    "4": "Stage 4 sleep|4",
    "5": "REM sleep|5",
    "6": "Movement|6",
    "9": "Unscored|9",
}


def typed_xml(codes: str, events: list[tuple[str, float, float]]) -> str:
    entries = [("Respiratory|Respiratory", f"{name}|{name.title()}", *span) for name, *span in events]
    entries += [("Stages|Stages", text, start, length) for start, length, text in runs(list(codes), STAGE_NAMES)]
    body = "".join(
        f"<ScoredEvent>\n<EventType>{kind}</EventType>\n<EventConcept>{concept}</EventConcept>\n"
        f"<Start>{start}</Start>\n<Duration>{duration}</Duration>\n</ScoredEvent>\n"
        for kind, concept, start, duration in entries
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<PSGAnnotation>\n<EpochLength>30</EpochLength>\n'
        f"<ScoredEvents>\n{body}</ScoredEvents>\n</PSGAnnotation>\n"
    )


def profusion_xml(codes: str, events: list[tuple[str, float, float]]) -> str:
    scored = "".join(
        f"<ScoredEvent><Name>{name}</Name><Start>{start}</Start><Duration>{duration}</Duration></ScoredEvent>"
        for name, start, duration in events
    )
    stages = "".join(f"<SleepStage>{code}</SleepStage>" for code in codes)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<CMPStudyConfig><EpochLength>30</EpochLength><ScoredEvents>{scored}'
        f"</ScoredEvents><SleepStages>{stages}</SleepStages></CMPStudyConfig>\n"
    )


def interrupt(path: Path, record: int, seconds: float) -> Path:
    """Make an EDF+ file of 1-s records, written with annotations, discontinuous: a gap before ``record``."""
    content = bytearray(path.read_bytes())
    content[192:197] = b"EDF+D"
    signals = int(content[252:256])
    at = 256 + 216 * signals
    sizes = [2 * int(content[at + 8 * i : at + 8 * i + 8]) for i in range(signals)]
    told = [content[256 + 16 * i :].startswith(b"EDF Annotations") for i in range(signals)].index(True)
    for number in range(record, int(content[236:244])):
        first = 256 * (1 + signals) + number * sum(sizes) + sum(sizes[:told])
        onset, rest = bytes(content[first : first + sizes[told]]).split(b"\x14", 1)
        moved = b"%+g\x14" % (float(onset) + seconds) + rest
        content[first : first + sizes[told]] = moved[: sizes[told]].ljust(sizes[told], b"\0")
    path.write_bytes(content)
    return path
