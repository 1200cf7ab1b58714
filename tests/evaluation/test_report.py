"""The page of a night in a real browser: nothing fetched, nothing hidden, every picture there, at two widths."""

import shutil

import numpy as np
import pytest

from evaluation.hypnogram import Hypnogram, spectra
from evaluation.report import page

# One process starts the browser.
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser():
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
    return Hypnogram("night <1>", stages, probabilities, None, scored, spectra(signals), events, about)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    stages = np.repeat([0, 1, 2, 3, 2, 4, -1, 0], 12).astype("int32")
    for name, these, scored in (("whole", stages, np.roll(stages, 5)), ("wake", np.zeros(30, "int32"), None)):
        it = night(these, scored)
        (folder / f"{name}.html").write_text(page(it, it.statistics()), encoding="utf-8")
    return folder


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("name", "pictures"), [("whole", 6), ("wake", 3)])
def test_the_page_in_a_browser(browser, pages, name, pictures, width):
    phone = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get((pages / f"{name}.html").as_uri())
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(loaded) == pictures and all(loaded)
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:'))"
        )
        == []
    )
    # Nothing sticks out, and no table has to be scrolled.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    sticking = "[...document.querySelectorAll('.tables div')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(browser.execute_script(f"return {sticking}")) == 0
    assert browser.execute_script("return document.images[0].width") == min(width, 9 * 96)
    contents = "[...document.querySelectorAll('nav a')].map(a => [a.innerText, a.hash])"
    sections = "[...document.querySelectorAll('section')].map(s => [s.querySelector('h2').innerText, `#${s.id}`])"
    assert browser.execute_script(f"return {contents}") == browser.execute_script(f"return {sections}") != []
    small = "[...document.querySelectorAll('p, a, th, td')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(browser.execute_script(f"return {small}")) >= 12
    text = browser.execute_script("return document.body.innerText")
    assert "night <1>" in text and "<script>alert(1)</script>" in text
    for section in ("Agreement with the scoring", "Breathing events"):
        assert (section in text) == (name == "whole")


def test_a_dark_screen_gets_a_dark_page_with_white_pictures(browser, pages):
    def ground(scheme: str, element: str) -> str:
        scheme = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        return browser.execute_script(f"return getComputedStyle(document.querySelector('{element}')).backgroundColor")

    browser.get((pages / "whole.html").as_uri())
    white = "rgb(255, 255, 255)"
    assert ground("light", "body") == ground("light", "img") == ground("dark", "img") == white
    assert ground("dark", "body") != white
