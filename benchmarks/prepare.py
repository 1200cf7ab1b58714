"""How long does a night's preparation take, and how much memory? ``python -m benchmarks.prepare``.

An 8-hour, 7-channel, 250-Hz EDF becomes a multi-channel night: seconds, the share spent in MNE's reading, peak memory.
Then 24 such nights (links to eight) by one process and by two, in turns, beside what two processes gain here on a loop
of additions, which no memory holds up; and the peak memory over 10 and 100 nights.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HOURS, RATE = 8, 250
EPOCHS = HOURS * 120
NIGHT_MIB = EPOCHS * 7 * 3000 * 4 / 2**20


def write_recording(folder: Path, number: int) -> None:
    """An SHHS-like recording of 250 Hz in all channels, and its scoring."""
    from benchmarks.measure import write_edf

    rng, names = np.random.default_rng(number), ("EEG(sec)", "ECG", "EMG", "EOG(L)", "EOG(R)", "EEG", "NEW AIR")
    signals = {name: rng.normal(0, 40, HOURS * 3600 * RATE) for name in names}
    write_edf(folder / f"shhs1-{200001 + number}.edf", signals, RATE)
    write_scoring(folder, number)


def write_scoring(folder: Path, number: int) -> None:
    stages = "".join(f"<SleepStage>{(i // 40) % 4}</SleepStage>" for i in range(EPOCHS))
    text = f"<CMPStudyConfig><EpochLength>30</EpochLength><SleepStages>{stages}</SleepStages></CMPStudyConfig>"
    (folder / f"shhs1-{200001 + number}-profusion.xml").write_text(text)


def one_night(folder: Path) -> None:
    """Prepare the folder's first night in this process; print seconds and peak memory as JSON."""
    import mne

    from config import PreparationConfig
    from data.databases import DATABASES
    from data.nights.files import write_arrays
    from data.prepare.conversion import band_pass, convert, resample
    from data.prepare.sources import find_sources
    from data.recordings.recording import Recording

    reading = 0.0
    read, opened = Recording.read, Recording.__init__

    def timed(function):  # noqa: ANN001, ANN202
        def wrapper(*arguments):  # noqa: ANN002, ANN202
            nonlocal reading
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                reading += time.perf_counter() - started

        return wrapper

    Recording.read, Recording.__init__ = timed(read), timed(opened)  # type: ignore[method-assign]
    spec = DATABASES["shhs"]
    source = find_sources(spec, folder)[0]
    # What is loaded on first use is loaded once, not once a night.
    mne.io.RawArray(np.ones((1, 3000)), mne.create_info(1, 100.0), verbose="error")
    band_pass(resample(np.ones(3000), RATE), (0.5, 40))

    before = peak_mib()
    started = time.perf_counter()
    arrays = convert(source, spec, spec.channels, PreparationConfig())
    converted = time.perf_counter() - started
    write_arrays(folder / "night.npz", arrays)
    seconds = time.perf_counter() - started
    figures = {"seconds": seconds, "reading": reading, "writing": seconds - converted}
    figures |= {"before": before, "peak": peak_mib()}
    print(json.dumps(figures))


def peak_mib() -> float:
    """The most memory this process has held, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def prepare(folder: Path, output: Path, jobs: int) -> tuple[float, float]:
    """The command as users give it; seconds, and the largest peak memory of its processes in MiB."""
    arguments = ["--db", "shhs", "--data", str(folder), "--out", str(output), "--jobs", str(jobs)]
    code = (
        "import sys; from data.prepare.__main__ import main; from benchmarks.prepare import peak_mib; "
        "code = main(sys.argv[1:]); print(peak_mib()); sys.exit(code)"
    )
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, float(ended.stdout.split()[-1])


def loops(count: int) -> float:
    """Seconds that ``count`` processes side by side take for a loop of additions each."""
    code = "import time; t = time.perf_counter(); sum(range(60_000_000)); print(time.perf_counter() - t)"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return max(float(process.communicate()[0]) for process in running)


def link(folder: Path, source: Path, count: int) -> Path:
    """A folder of ``count`` recordings, links to the eight of ``source`` in turn."""
    folder.mkdir()
    for number in range(count):
        (folder / f"shhs1-{200001 + number}.edf").symlink_to(source / f"shhs1-{200001 + number % 8}.edf")
        write_scoring(folder, number)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_night(arguments.one)
        return
    from benchmarks.device import machine

    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "raw"
        folder.mkdir()
        for number in range(8):
            write_recording(folder, number)
        runs = []
        for _ in range(5):
            command = [sys.executable, "-m", "benchmarks.prepare", "--one", str(folder)]
            ended = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(ended.stdout))
        middle = sorted(runs, key=lambda run: run["seconds"])[2]
        print(
            f"one night of {HOURS} h, 7 channels, {RATE} Hz: {middle['seconds']:.1f} s, of which MNE's reading "
            f"{middle['reading'] / middle['seconds']:.0%}, writing {middle['writing'] / middle['seconds']:.0%}; "
            f"peak memory {middle['peak']:.0f} MiB, of which {middle['before']:.0f} before: "
            f"{(middle['peak'] - middle['before']) / NIGHT_MIB:.1f} times the night's {NIGHT_MIB:.0f} MiB"
        )
        nights = link(Path(temporary) / "24", folder, 24)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for jobs in (1, 2) * 3:
            seconds[jobs].append(prepare(nights, Path(temporary) / "out", jobs)[0])
            shutil.rmtree(Path(temporary) / "out")
        one, two = (statistics.median(seconds[jobs]) for jobs in (1, 2))
        alone, beside = (statistics.median(loops(count) for _ in range(5)) for count in (1, 2))
        print(
            f"24 nights: {one:.1f} s by one process, {two:.1f} s by two: {one / two:.2f} times as fast; "
            f"a loop of additions: {2 * alone / beside:.2f} times"
        )
        for count in (10, 100):
            took, peak = prepare(link(Path(temporary) / f"{count}", folder, count), Path(temporary) / f"out{count}", 1)
            print(f"{count:4d} nights: {took:.0f} s, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
