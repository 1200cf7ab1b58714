"""Whatever comes in, a command answers with a result or with one sentence, soon, and leaves nothing half-written.

``python -m benchmarks.hostile`` tries many times as much as the suite.
"""

import io
import json
import resource
import shutil
import signal
import unicodedata
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest
import recordings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import predict
import trainer
from data.prepare import __main__ as prepare
from data.terms import LONGEST_SENTENCE
from recsleep.model import RecSleepNet
from runs.networks import save_model

MODEL = {"filters": 4, "first_kernel": 12, "lstm_units": 4, "block_kernel": 3}
STAGES = "W123RW"

MANY = settings.get_current_profile_name() == "many"
HOSTILE = settings(
    max_examples=200 if MANY else 25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
SECONDS, BYTES = 10 if MANY else 60, 2 << 30
"""What an answer may take; more time where other tests run beside it."""
# One process makes the model and the files that these tests alter.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("hostile inputs")]


class Place:
    """A folder with a model, a good recording and night and their scorings; ``out`` is emptied before each command."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.folder, self.contents = folder, contents

    def put(self, name: str, content: bytes | str) -> str:
        """The path of a file of this content below the folder ``tried``."""
        path = self.folder / "tried" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return str(path)

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def good(self) -> str:
        return str(self.folder / "good.edf")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    metadata = {"db": "sleepedf", "channel": "EEG Fpz-Cz", "split": {"test": [0]}, "amplitude": 12.5}
    save_model(folder / "models" / "0", RecSleepNet(**MODEL), metadata)
    psg = recordings.sleepedf(folder / "nights", STAGES)
    psg.rename(folder / "good.edf")
    hypnogram = folder / "nights" / "SC4001EC-Hypnogram.edf"
    places = {"dir": "models", "recording": "good.edf", "out": "staged"}
    assert predict.main([part for name, at in places.items() for part in (f"--{name}", str(folder / at))]) == 0
    contents = {
        "edf": (folder / "good.edf").read_bytes(),
        "hypnogram": hypnogram.read_bytes(),
        "metadata": (folder / "models" / "0" / "metadata.json").read_bytes(),
        "config": (folder / "models" / "0" / "config.json").read_bytes(),
        "corrections": (folder / "staged" / "good.hypnogram.csv").read_bytes(),
    }
    shutil.rmtree(folder / "nights")
    return Place(folder, contents)


class TooSlow(BaseException):
    """Not an ``Exception``, which a batch of recordings would take for the failure of one."""


@contextmanager
def within(seconds: float):
    def stop(*_):
        raise TooSlow(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answer(command: Callable[[list[str]], int], place: Place, *arguments: str) -> int:
    """Run a command, check how it answers and what it leaves, and return its exit code."""
    shutil.rmtree(place.out, ignore_errors=True)
    printed, told = io.StringIO(), io.StringIO()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with redirect_stdout(printed), redirect_stderr(told), within(SECONDS):
        try:
            code = command([*arguments])
        except SystemExit as ended:
            code = ended.code
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10 < BYTES
    assert code in (0, 1, 2), code
    if code == 2:
        sentence = told.getvalue().strip().splitlines()[-1]
        assert ": error: " in sentence and sentence.endswith((".", ")")), sentence
        assert len(sentence) < LONGEST_SENTENCE + 50
        assert not [sign for sign in sentence if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")], sentence
    assert "Traceback" not in told.getvalue() + printed.getvalue()
    out = Path(place.out)
    files = {path.name for path in out.rglob("*") if path.is_file()} if out.exists() else set()
    assert not {name for name in files if name.startswith(".")}
    # The JSON is written last: without it, no other result stays.
    finished = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    parts = {name for name in files if name.endswith((".png", ".html", ".hypnogram.csv", ".hypnogram.edf"))}
    assert all(name.split(".")[0] in finished for name in parts), files
    # It is where an error that nobody foresaw is told.
    logs = [path.read_text() for path in out.rglob("*.log")]
    assert not logs, logs[0]
    return code


def staged(place: Place, recording: str, *options: str) -> int:
    common = ("--dir", place.models, "--out", place.out, "--no-signals", *options)
    return answer(predict.main, place, "--recording", recording, *common)


# Text that a file's reader or a terminal may stumble over.
HOSTILE_WORDS = ("", "nan", "inf", "-1", "0", "1e308", "1e-320", "0x10", "1_0", "=1+1", "../x", "\x1b[31m", "\0")
HOSTILE_WORDS += ("\ud800", "\ufeff", "é", "٣", "9" * 5000, "a" * 300, "{name}", "%s")
USUAL_WORDS = ("W", "N2", "R", "?", "EEG Fpz-Cz", "30.0", "Sleep stage W")
WORD = st.one_of(
    st.sampled_from([*HOSTILE_WORDS, *USUAL_WORDS]),
    st.text(max_size=6),
    st.integers(-(10**12), 10**12).map(str),
    st.floats().map(str),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORD.filter(lambda text: "\ud800" not in text)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)

# What a header field of an EDF file may say instead: digits gone wild, nothing, text, bytes that are no text.
FIELD = st.one_of(
    st.integers(-(10**7), 10**8).map(lambda n: str(n).encode()),
    st.sampled_from([b"", b"nan", b"inf", b"1e308", b"-1", b"0", b"0.1", b"1_0", b"EDF Annotations", b"EDF+D"]),
    st.binary(max_size=16),
)
CHANGES = st.lists(st.tuples(st.integers(0, 1023), FIELD), min_size=1, max_size=4)


def altered(content: bytes, changes) -> bytes:
    data = bytearray(content)
    for at, text in changes:
        # Header fields are eight bytes or a multiple wide; half of the changes hit one squarely.
        at = at // 8 * 8 + 4 * (252 <= at < 260)
        data[at : at + max(8, len(text))] = text.ljust(8)
    return bytes(data)


CUTS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 40), WORD), min_size=1, max_size=4)


def cut(text: str, cuts) -> str:
    """``text`` with some of its parts left out, and others put in their place."""
    for at, length, instead in cuts:
        at %= len(text) + 1
        text = text[:at] + instead + text[at + length :]
    return text


@HOSTILE
@given(changes=CHANGES, length=st.one_of(st.none(), st.integers(0, 4000)))
def test_recording(place, changes, length):
    staged(place, place.put("x.edf", altered(place.contents["edf"], changes)[:length]))


@HOSTILE
@given(changes=CHANGES, length=st.one_of(st.none(), st.integers(0, 4000)))
def test_preparation(place, changes, length):
    name = place.put("raw/SC4001E0-PSG.edf", altered(place.contents["edf"], changes))
    place.put("raw/SC4001EC-Hypnogram.edf", altered(place.contents["hypnogram"], changes)[:length])
    answer(prepare.main, place, "--db", "sleepedf", "--data", str(Path(name).parent), "--out", place.out)


ARRAY = st_numpy.arrays(
    st.one_of(st_numpy.scalar_dtypes(), st_numpy.unicode_string_dtypes(), st_numpy.byte_string_dtypes()),
    st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)
GOOD = {
    "x": np.random.default_rng(0).normal(0, 20, (6, 1, 3000)).astype("float32"),
    "y": np.arange(6) % 5,
    "fs": np.array(100.0),
    "ch_names": np.array(["EEG Fpz-Cz"]),
    "events": np.zeros((6, 1), bool),
    "event_names": np.array(["apnea"]),
}


@HOSTILE
@given(
    instead=st.dictionaries(st.sampled_from(sorted(GOOD)), st.one_of(st.none(), ARRAY), max_size=2),
    about=st.one_of(JSON.map(json.dumps), WORD, st.integers(1, 200_000).map(lambda n: "[" * n + "]" * n)),
    values=st.lists(st.tuples(st.integers(0, 17_999), st.floats(width=32)), max_size=3),
)
def test_night_file(place, instead, about, values):
    x = GOOD["x"].copy()
    for at, value in values:
        x.flat[at] = value
    arrays = {**GOOD, "x": x, "about": np.array(about), **instead}
    file = io.BytesIO()
    with suppress(UnicodeEncodeError):
        np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    staged(place, place.put("x.npz", file.getvalue()))


@HOSTILE
@given(
    cuts=st.lists(st.tuples(st.integers(0, 1500), st.binary(max_size=8)), min_size=1, max_size=4),
    member=st.sampled_from(["y.npy", "x.npy", "../y.npy", "about.npy"]),
    header=st.one_of(st.none(), st.tuples(WORD, WORD, WORD)),
)
def test_archive(place, cuts, member, header):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x", "y"):
            content = io.BytesIO()
            np.save(content, GOOD[name])
            archive.writestr(f"{name}.npy", content.getvalue())
        if header:
            kind, order, length = header
            said = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': ({length},)}}\n".encode("utf-8", "replace")
            archive.writestr(member, b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said + bytes(100))
    data = bytearray(file.getvalue())
    for at, instead in cuts if not header else ():
        at = len(data) - 1 - at if at % 2 else at
        data[at : at + len(instead)] = instead
    staged(place, place.put("x.npz", bytes(data)))


XML = [recordings.typed_xml(STAGES.replace("W", "0").replace("R", "5"), [("Hypopnea", 40, 12)])]
XML += [recordings.profusion_xml(STAGES.replace("W", "0").replace("R", "5"), [("Hypopnea", 40, 12)])]
TABLES = ["start_s,duration,stage\n" + "".join(f"{30 * n},30,N2\n" for n in range(6)), "W\nN1\nN2\nN3\nR\n?\n"]
TABLES += ["onset\tduration\ttrial_type\n" + "".join(f"{30 * n}\t30\tsleep_N2\n" for n in range(6))]


WILD_XML = st.builds(
    lambda form, codes, entries, length: form(codes, entries).replace(">30<", f">{length}<"),
    st.sampled_from([recordings.typed_xml, recordings.profusion_xml]),
    st.lists(st.sampled_from("0123459"), max_size=6).map("".join),
    st.lists(st.tuples(st.sampled_from(["Hypopnea", "Snore", "<"]), WORD, WORD), max_size=3),
    WORD,
)


@HOSTILE
@given(
    text=st.one_of(st.sampled_from([*XML, *TABLES]), WILD_XML, st.lists(WORD, max_size=8).map("\n".join)),
    cuts=st.one_of(st.just([]), CUTS),
    ending=st.sampled_from(["xml", "csv", "tsv", "txt", "edf", "npz", "_events.tsv", "vmrk", "exe"]),
)
def test_scoring(place, text, cuts, ending):
    if not ending.startswith("_"):
        ending = f".{ending}"
    staged(place, place.good, "--scoring", place.put(f"x{ending}", cut(text, cuts)))


@HOSTILE
@given(cuts=CUTS)
def test_corrections(place, cuts):
    text = place.contents["corrections"].decode()
    rows = [line.split(",") for line in text.splitlines()]
    table = "epoch,stage,model_stage,probability,corrected,who,when\n"
    at = rows[0].index("stage")
    table += "".join(f"{n},N2,{row[at]},0.5,1,me,now\n" for n, row in enumerate(rows[1:]))
    staged(place, place.good, "--corrections", place.put("x.csv", cut(table, cuts)))


SPEC = """
recordings = "*.edf"
scoring = "{name}-scored.txt"
form = "lines"
subject = '(\\d+)'
channels = {C3 = ["EEG Fpz-Cz"]}
labels = {W = "W", "1" = "N1", "2" = "N2", "3" = "N3", R = "REM"}
"""
YAML = """
recordings: "*.edf"
scoring: "{name}-scored.txt"
form: lines
channels: {C3: ["EEG Fpz-Cz"]}
labels: {W: W, "1": N1, "2": N2, "3": N3, R: REM}
"""
PATTERNS = [r"(a+)+$", r"(\d+", r"(?P<x>.)" * 200, r"()", r"(.*?)*$", "(x+x+)+y", "\\", r"(\d{1,999999})", "(?i)(1)"]


@HOSTILE
@given(
    ending=st.sampled_from(["toml", "yaml"]),
    cuts=st.one_of(st.just([]), CUTS),
    subject=st.one_of(st.none(), st.sampled_from(PATTERNS), WORD),
)
def test_spec(place, ending, cuts, subject):
    text = SPEC if ending == "toml" else YAML
    if subject is not None:
        said = json.dumps(subject)
        text = text.replace("'(\\d+)'", said) if ending == "toml" else f"{text}subject: {said}\n"
    raw = Path(place.put("raw/aaaaaaaaaaaaaaaaaaaaaaaaaaaa1!.edf", place.contents["edf"])).parent
    place.put("raw/aaaaaaaaaaaaaaaaaaaaaaaaaaaa1!-scored.txt", "\n".join(STAGES))
    spec = place.put(f"x.{ending}", cut(text, cuts))
    answer(prepare.main, place, "--db", "custom", "--spec", spec, "--data", str(raw), "--out", place.out)


@HOSTILE
@given(
    file=st.sampled_from(["metadata", "config"]),
    key=st.integers(0, 40),
    value=JSON,
    cuts=st.one_of(st.just([]), st.just([]), CUTS),
)
def test_model(place, file, key, value, cuts):
    model = Path(place.folder, "tried-models", "0")
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(Path(place.models, "0"), model)
    told = json.loads(place.contents[file])
    names = sorted(told)
    told[names[key % len(names)]] = value
    text = cut(json.dumps(told), cuts)
    (model / f"{file}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    options = ("--dir", str(model.parent), "--out", place.out, "--no-signals")
    answer(predict.main, place, "--recording", place.good, *options)


VALUE = st.one_of(
    WORD.filter(lambda text: "\0" not in text),
    st.sampled_from(["synthetic", "sleepedf", "custom", "recsleepnet", "synthsleepnet", "eeg", "0", "1", "2"]),
    st.sampled_from(["good.edf", "models", "staged", "nowhere", "/dev/null", "http://[::1/x.edf", "s3://", "*", "**"]),
)
SET = st.one_of(
    st.tuples(
        st.sampled_from(["folds", "passes", "batch_size", "rate", "night_patterns", "modalities"]),
        st.one_of(VALUE, JSON.map(repr)),
    ).map("=".join),
    VALUE,
)
OPTIONS = {
    predict.main: "model db dir data fold json save recording channel scoring spec corrections lights-off lights-on "
    "no-signals show-patient no-calibration no-smoothing overwrite jobs",
    prepare.main: "db data spec subjects select_ch format list jobs",
    trainer.main: "db model from_fold to_fold suffix data subjects set without preset protocol step task tcm modality",
}


@HOSTILE
@given(data=st.data(), command=st.sampled_from(list(OPTIONS)))
def test_command_line(place, data, command, monkeypatch):
    monkeypatch.chdir(place.folder)
    arguments = []
    for option in data.draw(st.lists(st.sampled_from(OPTIONS[command].split()), max_size=5), "options"):
        arguments += [f"--{option}", data.draw(SET if option == "set" else VALUE, option)]
    # Twenty whole nights would be made.
    assume(command is not prepare.main or "synthetic" not in arguments)
    # The trainer finds no nights.
    arguments += ["--db", "sleepedf", "--data", place.nights] if command is trainer.main else []
    answer(command, place, *arguments, "--out", place.out)
