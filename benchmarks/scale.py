"""Many nights, many workers: ``python -m benchmarks.scale [FOLDER]``.

Peak memory of a pretraining process over 10, 100 and 1,000 nights of 2.6 MB, links to ten synthetic ones. Where the
time of a pretraining update goes: forward, backward, the update, waiting for input. Updates a second with one and with
two workers of ``--strategy multiworker`` on this machine, which share its processor. Seconds to find 6,000 nights and
to check them, for the first time and again.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from benchmarks.device import machine
from benchmarks.measure import linked, trainer
from config import SynthSleepNetTraining
from data.databases import DATABASES
from data.nights.folds import find_nights
from data.nights.index import INDEX, check_nights
from data.prepare.synthetic import ensure_nights
from data.recipe import Recipe
from data.streams.epochs import epochs
from runs.settings import configure
from synth.learner import Learner
from synth.models.neuronet import NeuroNet
from synth.replicas import replicas
from synth.steps.pretraining import neuronet

RECIPE = Recipe.of_nights(DATABASES["synthetic"], {"eeg": "EEG C4-M1"}, {}, scaled=True)

STEP = ("--step", "unimodal", "--modality", "eeg", "--from_fold", "1", "--to_fold", "1")


def learner_of(network: NeuroNet) -> Learner:
    """The update of its pretraining, as published: AdamW, the gradient's norm clipped at 2."""

    def losses(inputs: Any) -> dict[str, Any]:
        found = network(inputs, training=True)
        return {"loss": found["reconstruction"] + found["contrastive"]}

    about: dict[str, Any] = {"rate": 1e-4, "weight_decay": 0.01, "clip_norm": 2.0}
    return Learner(network, losses, **about, accumulation=1, replicas=replicas(None))


def memory(folder: Path, count: int) -> None:
    """Print the peak memory of a process that trains one pass over ``count`` nights."""
    names = (f"synthetic{number:02d}.npz" for number in range(count))
    nights = linked(folder / f"{count}_nights", names, sorted((folder / "short").glob("*.npz")))
    (nights / "settings.json").write_text((folder / "short" / "settings.json").read_text())
    subjects = f"subjects={tuple(range(count))}"
    settings = (subjects, f"folds={count}", "hours=0.25", "unimodal_passes=1", "unimodal_batch=64", "round_nights=100")
    started = time.perf_counter()
    out = folder / f"out_{count}_{os.getpid()}"
    command = trainer("synthetic", nights, out, settings, *STEP)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    seconds = time.perf_counter() - started
    print(f"{count:5d} nights: {usage.ru_maxrss / 1024:6.0f} MiB at most, {seconds:.0f} s", flush=True)


def found(folder: Path, count: int) -> None:
    """Print how long ``count`` nights take to be found and checked, with subjects found from names and listed."""
    spec, subjects = DATABASES["shhs"], tuple(range(200_001, 200_001 + count))
    names = (spec.night_patterns[0].format(subject=subject) for subject in subjects)
    nights = linked(folder / f"{count}_found", names, [min((folder / "short").glob("*.npz"))])
    (nights / INDEX).unlink(missing_ok=True)
    listed = replace(spec, subjects=subjects)
    tasks = {
        "found, subjects from names": lambda: find_nights(spec, nights),
        "found, subjects listed": lambda: find_nights(listed, nights),
        "checked for the first time": lambda: check_nights(find_nights(spec, nights), ("EEG C4-M1",)),
        "checked again": lambda: check_nights(find_nights(spec, nights), ("EEG C4-M1",)),
    }
    print(f"{count} nights of 0.25 h:")
    for name, task in tasks.items():
        started = time.perf_counter()
        task()
        print(f"  {name:28}{time.perf_counter() - started:7.2f} s", flush=True)


def parts(nights: Path) -> None:
    """Print where the time of an update goes, at the ``small`` preset."""
    config = configure("synthetic", ["hours=1"], "small")
    training, network = config.training, neuronet(config)
    assert isinstance(training, SynthSleepNetTraining)

    learner = learner_of(network)
    forward = tf.function(lambda batch: network(batch, training=True))

    def batches(seed: int) -> Iterator[dict[str, tf.Tensor]]:
        for batch in epochs(sorted(nights.glob("*.npz")), RECIPE, training.unimodal_batch, (seed,)):
            yield {"signals": batch["eeg"]}

    held = list(itertools.islice(batches(0), 12))
    tasks = {
        "forward": lambda batch: forward(batch)["contrastive"].numpy(),
        "forward and backward": lambda batch: learner.differentiate(batch)[0]["loss"].numpy(),
        "the whole update": lambda batch: learner.step(batch)["loss"].numpy(),
    }
    for task in tasks.values():
        task(held[0])
    print(f"update of {training.unimodal_batch} epochs, preset small:")
    for name, task in tasks.items():
        started = time.perf_counter()
        for batch in held:
            task(batch)
        print(f"  {name:24}{(time.perf_counter() - started) / len(held) * 1e3:7.0f} ms")
    # The stream works while the model does; what counts is how long an update waits for it.
    waited, stream = 0.0, batches(1)
    next(stream)
    for _ in held:
        started = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - started
        learner.step(batch)["loss"].numpy()
    print(f"  {'waiting for input':24}{waited / len(held) * 1e3:7.1f} ms", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def workers(folder: Path, count: int) -> None:
    """Print updates a second of ``count`` workers, each with its share of the same batch."""
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(count)]}
    out = folder / f"workers_{count}_{os.getpid()}"
    settings = ("hours=1", "unimodal_passes=3", "unimodal_batch=64")
    command, running = trainer("synthetic", folder / "nights", out, settings, *STEP, "--strategy", "multiworker"), []
    for index in range(count):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = os.environ | {"TF_CONFIG": config}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    assert [worker.wait() for worker in running] == [0] * count
    log = pd.read_csv(out / "synthetic" / "1" / "unimodal" / "eeg" / "log.csv")
    updates = 7 * 120 // 64
    # The first pass compiles.
    seconds = log["seconds"][1:].mean()
    print(f"{count} workers: {updates / seconds:.2f} updates a second, with validation", flush=True)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/scale")
    folder.mkdir(parents=True, exist_ok=True)
    print(machine())
    for name, hours in (("nights", 1), ("short", 0.25)):
        config = configure("synthetic", [f"hours={hours}"])
        ensure_nights(folder / name, config.database, config.synthetic)
    # First, while this process is small: a child's peak counts what its parent held.
    for count in (10, 100, 1000):
        memory(folder, count)
    found(folder, 6000)
    parts(folder / "nights")
    for count in (1, 2):
        workers(folder, count)


if __name__ == "__main__":
    main()
