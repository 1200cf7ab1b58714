"""The page of a night in a real browser, as a person uses it; nothing fetched, nothing hidden, at two widths."""

import json
import shutil
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest

from evaluation.breathing import ScoredEvents
from evaluation.corrections import corrected
from evaluation.hypnogram import Hypnogram
from evaluation.report import page
from evaluation.signals import BITS, Trace, packed
from evaluation.spectra import spectra

# One process starts the browser.
pytestmark = pytest.mark.xdist_group("browser")

HOSTILE = "night </script><script>document.title = 'broken'</script> <1> \\u003c"
START = datetime(2020, 2, 29, 23, 30, 15)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    """Headless Chromium, cut off from any network."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its chromedriver is installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, Service(driver))
    opened.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield opened
    opened.quit()


def night(stages: np.ndarray, scored: np.ndarray | None) -> Hypnogram:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.3), len(stages)).astype("float32")
    about = {"warnings": ["C3-M2: <script>alert(1)</script> & it is clipped."], "assumptions": ["channel C3-M2"]}
    signals = rng.normal(size=(len(stages), 3000)).astype("float32")
    events = (
        {} if scored is None else {name: rng.random(len(stages)).astype("float32") for name in ("apnea", "hypopnea")}
    )
    return Hypnogram(HOSTILE, stages, probabilities, None, scored, spectra(signals), events, about)


@pytest.fixture(scope="module")
def whole():
    """A night with all that a page can show: a scorer, events, lights and signals, one of them of unknown unit."""
    stages = np.repeat([0, 1, 2, 3, 2, 4, -1, 0], 12).astype("int32")
    walk = 10 * np.random.default_rng(1).normal(size=(3, 3000 * len(stages))).cumsum(axis=1)
    waves = (1000 + 40 * np.sin(walk / 40)).astype("float32")
    known = (("C3-M2", "eeg", "µV"), ("<i>LOC", "eog", "µV"), ("chin", "emg", ""))
    traces = tuple(Trace(*names, wave) for names, wave in zip(known, waves, strict=True))
    about = {"subject": "S 7", "channels": [{"name": "C3-M2"}]}
    it = night(stages, np.roll(stages, 5))
    more = {
        "positions": np.repeat(["", "supine", "prone", "left", "right", "upright"], 16),
        "scored_events": ScoredEvents(stages == 4, it.scored > 0, 3),
    }
    return replace(it, start=START, traces=traces, lights=(2, 90), about={**it.about, **about}, **more)


@pytest.fixture(scope="module")
def pages(tmp_path_factory, whole):
    folder = tmp_path_factory.mktemp("pages")
    for name, it in (("whole", whole), ("wake", night(np.zeros(30, "int32"), None))):
        (folder / f"{name}.html").write_text(page(it, it.statistics()), encoding="utf-8")
    return folder


def shown(browser, path: Path, width: int = 1280, scheme: str = "light") -> None:
    """Open a page and wait until it is whole."""
    from selenium.webdriver.support.wait import WebDriverWait

    phone = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())
    ready = "return 'ready' in document.documentElement.dataset"
    WebDriverWait(browser, 30, 0.02).until(lambda _: browser.execute_script(ready))


def press(browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser, duration=0).send_keys(*keys).perform()


def said(browser) -> str:
    return browser.execute_script("return document.getElementById('said').innerText")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["whole", "wake"])
def test_the_page_in_a_browser(browser, pages, name, width):
    shown(browser, pages / f"{name}.html", width)
    assert browser.get_log("browser") == []
    fetched = "performance.getEntriesByType('resource').filter(r => !/^(data|blob):/.test(r.name))"
    assert browser.execute_script(f"return {fetched}") == []
    # Nothing sticks out, and no table has to be scrolled; pictures are as wide as there is room.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    sticking = "[...document.querySelectorAll('.tables div')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(browser.execute_script(f"return {sticking}")) == 0
    drawn = browser.execute_script("return pictures.map(p => [p.inner_width + 80, p.inner_height])")
    assert len(drawn) == (5 if name == "whole" else 3)
    for across, down in drawn:
        assert (width if width < 700 else 700) - 24 < across <= width and down > 50
    contents = "[...document.querySelectorAll('nav a')].map(a => [a.innerText, a.hash])"
    sections = "[...document.querySelectorAll('section')].map(s => [s.querySelector('h2').innerText, `#${s.id}`])"
    assert browser.execute_script(f"return {contents}") == browser.execute_script(f"return {sections}") != []
    small = "[...document.querySelectorAll('p, a, th, td, button')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(browser.execute_script(f"return {small}")) >= 12
    text = browser.execute_script("return document.body.innerText")
    assert HOSTILE in text and "<script>alert(1)</script>" in text and "broken" not in browser.title[:6]
    for expected in (
        "Agreement with the scoring",
        "Apnea and hypopnea",
        "2 <i>LOC",
        "S 7",
        "23:31:15 and 00:15:15",
        "not supine",
        "estimated",
    ):
        assert (expected in text) == (name == "whole")


def test_a_dark_screen_gets_dark_pictures_and_paper_gets_light_ones(browser, pages):
    def grounds() -> list[str]:
        return browser.execute_script("return [...new Set(pictures.map(p => p.background_fill_color))]")

    shown(browser, pages / "whole.html", scheme="dark")
    assert grounds() == ["#14191f"]
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert grounds() == ["#ffffff"]
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert grounds() == ["#14191f"]


def test_no_fault_of_accessibility(browser, pages):
    axe = find_spec("axe_core_python")
    if axe is None:
        pytest.skip("no axe-core is installed")
    shown(browser, pages / "whole.html")
    browser.execute_script((Path(axe.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8"))
    for scheme, rules in (("light", {"resultTypes": ["violations"]}), ("dark", {"runOnly": ["color-contrast"]})):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        found = browser.execute_async_script("axe.run(arguments[0]).then(arguments[1])", rules)
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []
        assert found["passes"]


def test_signals_are_those_of_the_recording(browser, pages, whole):
    shown(browser, pages / "whole.html")
    for number, trace in enumerate(whole.traces):
        step, steps = browser.execute_script(
            "const {step, samples} = night.signals[arguments[0]]; return [step, [...samples.subarray(0, 30000)]]",
            number,
        )
        off = np.array(steps) * step - trace.samples[:30000]
        # A constant apart, for every epoch is drawn around its own middle.
        assert np.ptp(off) <= 1.001 * step + 1e-3
        span = np.subtract(*np.percentile(trace.samples, (95, 5)))
        assert step == (0.5 if trace.unit else pytest.approx(span / 200, rel=0.1))
    # The third epoch as it is drawn: 150 µV lie between the channels.
    browser.execute_script("go(2)")
    lines = "pictures.at(-1).renderers.filter(r => r.name === 'signal').map(r => [...r.data_source.data.y])"
    for row, drawn in enumerate(browser.execute_script(f"return {lines}")[:2]):
        epoch = whole.traces[row].samples[6000:9000]
        np.testing.assert_allclose(np.array(drawn) + 150 * row, epoch - np.sort(epoch)[1500], atol=1)


def test_all_signals_of_eight_hours_fit_into_the_page():
    """The worst there is: white noise, with an epoch of another height."""
    noise = np.random.default_rng(0).normal(0, 200, 8 * 360_000).astype("float32")
    noise[:3000] *= 300
    given = packed([Trace("EEG", "eeg", "µV", noise)] * 4)
    size = sum(len(trace["low"]) + len(trace["high"]) for trace in given)
    assert 0.8 * BITS / 6 < size < 1.05 * BITS / 6


def test_what_a_person_does(browser, pages, whole, downloads):
    from selenium.webdriver import ActionChains, Keys

    shown(browser, pages / "whole.html")
    browser.execute_script("localStorage.clear(); changes = []; draw()")
    # A click in the middle of the hypnogram goes there, arrows walk, and zooming keeps the epoch in sight.
    overview = browser.find_element("id", "overview")
    ActionChains(browser, duration=0).move_to_element_with_offset(overview, 20, -200).click().perform()
    middle = int(said(browser).split()[1])
    assert abs(middle - 50) < 4
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert said(browser).startswith(f"Epoch {middle + 1} of 96 · {whole.clock(middle)} · ")
    browser.find_element("css selector", "[data-act=in]").click()
    sight = "return [range.start, range.end].map(t => (t - origin) / 30000)"
    first, end = browser.execute_script(sight)
    assert end - first == 48 and first <= middle < end
    # Walk to three doubtful epochs and correct them; a change before them is undone.
    browser.find_element("id", "who").send_keys('Dr, "A" w1n')
    press(browser, Keys.TAB)
    browser.execute_script("go(0)")
    press(browser, "3", "u", "u")
    doubtful, changed = np.flatnonzero(whole.doubtful), {}
    for key, stage in (("w", 0), ("r", 4), ("?", -1)):
        press(browser, "n")
        epoch = int(said(browser).split()[1]) - 1
        assert epoch in doubtful and epoch not in changed
        stage = 3 if whole.stages[epoch] == stage else stage
        press(browser, "3" if stage == 3 else key)
        changed[epoch] = stage
    expected = whole.stages.copy()
    expected[list(changed)] = list(changed.values())
    # A reload keeps them, and undoing goes on from there.
    shown(browser, pages / "whole.html")
    assert browser.execute_script("return stages()") == expected.tolist()
    press(browser, "u", Keys.ARROW_LEFT)
    press(browser, Keys.ARROW_RIGHT, "3" if changed[epoch] == 3 else "?")
    assert "3 epochs differ" in browser.execute_script("return document.body.innerText")
    for ending in ("csv", "edf"):
        browser.find_element("css selector", f"[data-act={ending}]").click()
    files = wait_for(downloads, 2)
    # What was saved is read.
    read = corrected(whole, files["csv"])
    assert read.stages.tolist() == expected.tolist() and read.model_stages.tolist() == whole.stages.tolist()
    assert read.about["corrections"]["who"] == ['Dr, "A" w1n']
    assert [epoch for epoch, *_ in read.about["corrections"]["each"]] == sorted(changed)
    table = pd.read_csv(files["csv"])
    assert table["probability"].tolist() == pytest.approx(whole.confidence, abs=1e-4)
    assert table["corrected"].sum() == 3 and table["when"].notna().sum() == 3
    annotations = mne.read_annotations(files["edf"])
    ours = replace(whole, stages=expected, events={}).to_annotations()
    for column in ("onset", "duration", "description"):
        assert list(getattr(annotations, column)) == list(getattr(ours, column))
    assert files["edf"].read_bytes()[168:184] == b"29.02.2023.30.15"
    # The page of the corrected night begins with them, and knows who made them.
    again = pages / "again.html"
    again.write_text(page(read, read.statistics()), encoding="utf-8")
    shown(browser, again)
    assert browser.execute_script("return stages()") == expected.tolist()
    assert browser.execute_script("return csv()") == files["csv"].read_text()
    assert browser.get_log("browser") == []


def wait_for(folder: Path, count: int) -> dict[str, Path]:
    """The downloaded files by their endings, once there are so many."""
    import time

    for _ in range(200):
        files = {path.suffix[1:]: path for path in folder.iterdir() if path.suffix in (".csv", ".edf")}
        if len(files) == count:
            return files
        time.sleep(0.02)
    raise AssertionError(f"{folder} holds {list(folder.iterdir())}")


def test_data_of_the_page_are_json_that_no_name_ends(pages):
    text = (pages / "whole.html").read_text()
    (data,) = [part for part in text.split("</script>") if 'id="night"' in part]
    data = data.split('id="night">')[1]
    assert "<" not in data
    assert json.loads(data)["name"] == HOSTILE


def test_a_page_says_so_where_nothing_differs(whole):
    alike = replace(whole, scored=whole.stages)
    assert "agree in every epoch that both have scored" in page(alike, alike.statistics())
    other = whole.stages.copy()
    other[0] = 1 if other[0] != 1 else 2
    differing = replace(whole, scored=other)
    text = page(differing, differing.statistics())
    assert "The longest differences" in text and "agree in every epoch" not in text
