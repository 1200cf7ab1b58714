"""Is the page of a night small and quick? ``python -m benchmarks.page [PAGE]``.

A made-up night of eight hours with three EEG, two EOG and an EMG, or the page at hand, in headless Chromium: its size,
the seconds until it is whole, and the milliseconds from a key to the picture that answers it.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

HOURS = 8
KEYS = ("ArrowRight", "n", "2", "u", "ArrowLeft", "r", "?", "u") * 10
PRESS = """
const done = arguments[1];
const press = (key) => new Promise((answered) => {
  const begin = performance.now();
  document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  // The frame after the next one is begun when the next one is drawn.
  requestAnimationFrame(() => requestAnimationFrame(() => answered(performance.now() - begin)));
});
(async () => {
  const found = [];
  for (const key of arguments[0]) found.push(await press(key));
  done(found);
})();
"""


def write_page(path: Path) -> None:
    """The page of a night of random stages and noise of 1/f."""
    from evaluation.hypnogram import Hypnogram
    from evaluation.report import page
    from evaluation.signals import Trace
    from evaluation.spectra import spectra

    rng, epochs = np.random.default_rng(0), HOURS * 120
    spectrum = np.fft.rfft(rng.normal(size=(6, epochs * 3000)), axis=1)
    spectrum /= np.maximum(np.fft.rfftfreq(epochs * 3000, 1 / 100), 0.5)
    noise = np.fft.irfft(spectrum, axis=1)
    noise *= 20 / noise.std()
    names = ("F4-M1", "C4-M1", "C3-M2", "EOG left", "EOG right", "EMG chin")
    traces = [Trace(name, "eeg", "µV", samples.astype(np.float32)) for name, samples in zip(names, noise, strict=True)]
    stages = np.repeat(rng.integers(0, 5, epochs // 8), 8).astype(np.int32)
    probabilities = rng.dirichlet(np.full(5, 0.3), epochs).astype(np.float32)
    power = spectra(traces[0].samples.reshape(epochs, 3000))
    night = Hypnogram("night", stages, probabilities, spectra=power, traces=tuple(traces))
    path.write_text(page(night, night.statistics()), encoding="utf-8")


def main() -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.wait import WebDriverWait

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", nargs="?", type=Path, help="a page (default: that of a made-up night)")
    given = parser.parse_args().page
    with tempfile.TemporaryDirectory() as folder:
        path = given or Path(folder) / "night.html"
        if not given:
            started = time.perf_counter()
            write_page(path)
            print(f"made and written in {time.perf_counter() - started:.1f} s")
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1440,900"):
            options.add_argument(f"--{argument}")
        browser = webdriver.Chrome(options, Service(shutil.which("chromedriver") or ""))
        try:
            browser.get(path.resolve().as_uri())
            wait = WebDriverWait(browser, 60, 0.02)
            whole = wait.until(lambda opened: opened.execute_script("return document.documentElement.dataset.ready"))
            print(f"whole after {float(whole) / 1000:.2f} s")
            answers = np.array(browser.execute_async_script(PRESS, KEYS))
        finally:
            browser.quit()
    print(
        f"{len(KEYS)} keys: median {np.median(answers):.0f} ms, 95 % {np.percentile(answers, 95):.0f} ms, "
        f"slowest {answers.max():.0f} ms"
    )


if __name__ == "__main__":
    main()
