"""Whatever bytes an EDF header, a hypnogram or an XML scoring holds: a night or a sentence, and soon."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import recordings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import PreparationConfig
from data.databases import DATABASES
from data.prepare.conversion import convert
from data.prepare.sources import Source
from data.scorings import nsrr, sleepedf
from data.terms import InputError

MANY = settings(max_examples=1500, deadline=5000, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def night():
    """The bytes of a short recording and of its hypnogram, and a folder to write altered ones to."""
    with tempfile.TemporaryDirectory() as folder:
        psg = recordings.sleepedf(Path(folder), "W123RW")
        yield SimpleNamespace(
            folder=Path(folder), psg=psg.read_bytes(), hypnogram=psg.with_name("SC4001EC-Hypnogram.edf").read_bytes()
        )


# What a header field may say instead: digits gone wild, nothing, text, bytes that are no text.
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


def attempt(function) -> None:
    """Run it; the only error it may end in is one sentence."""
    try:
        function()
    except InputError as error:
        assert "\n" not in str(error) and str(error).endswith((".", ")"))


@MANY
@given(changes=CHANGES)
def test_edf_header(night, changes):
    (night.folder / "fuzzed-PSG.edf").write_bytes(altered(night.psg, changes))
    hypnogram = night.folder / "SC4001EC-Hypnogram.edf"
    hypnogram.write_bytes(night.hypnogram)
    spec = DATABASES["sleepedf"]
    source = Source("fuzzed", night.folder / "fuzzed-PSG.edf", {"hypnogram": hypnogram})
    attempt(lambda: convert(source, spec, spec.channels, PreparationConfig()))


@MANY
@given(changes=CHANGES, length=st.integers(0, 4000))
def test_hypnogram(night, changes, length):
    path = night.folder / "fuzzed-Hypnogram.edf"
    path.write_bytes(altered(night.hypnogram, changes)[:length])
    recording = SimpleNamespace(path=night.folder, seconds=180.0, start=None)
    attempt(lambda: sleepedf.read_scoring({"hypnogram": path}, recording))


TYPED = recordings.typed_xml("0012945", [("Hypopnea", 40, 12)])
PROFUSION = recordings.profusion_xml("0012945", [("Hypopnea", 40, 12)])


@MANY
@given(
    text=st.sampled_from([TYPED, PROFUSION]),
    cuts=st.lists(st.tuples(st.integers(0, 1800), st.integers(0, 40), st.text(max_size=12)), max_size=4),
)
def test_xml_cut_and_pasted(night, text, cuts):
    for at, length, instead in cuts:
        text = text[:at] + instead + text[at + length :]
    path = night.folder / "fuzzed.xml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    attempt(lambda: nsrr.read_scoring({"stages": path}))


NUMBER = st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=5), st.just("30.0"))


@MANY
@given(
    form=st.sampled_from(["typed", "profusion"]),
    codes=st.lists(st.sampled_from("01234569x"), max_size=6),
    entries=st.lists(st.tuples(st.sampled_from(["Hypopnea", "Snore", "<"]), NUMBER, NUMBER), max_size=3),
    length=NUMBER,
)
def test_xml_of_wild_values(night, form, codes, entries, length):
    build = recordings.typed_xml if form == "typed" and "x" not in codes else recordings.profusion_xml
    text = build("".join(codes), entries).replace(">30<", f">{length}<")
    path = night.folder / "fuzzed.xml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    attempt(lambda: nsrr.read_scoring({"stages": path}))
