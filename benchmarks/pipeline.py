"""Does the stream's memory grow with the nights, does the model wait for it? ``python -m benchmarks.pipeline``.

A process of its own reads 10, 30, 100 and 500 nights (links to a synthetic one) and reports its peak memory; then a
training pass over 30 nights says what share of its time went into waiting for the next batch, and another over 100
nights of one channel in an S3 server on this machine, which takes its share of the processor. Last, the stream of
pretraining reads one modality of nights as large as the SHHS's, the model left out, as npz, as Parquet, from S3, and
from S3 over a network of 1 Gbit/s.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from config import SyntheticConfig
from data.databases import DATABASES
from data.nights.files import write_arrays
from data.recipe import Recipe

SPEC = DATABASES["synthetic"]
GIGABIT = 125e6
"""Bytes a second of a usual network."""
RECIPE = Recipe.of_nights(SPEC, {"eeg": SPEC.channel}, {})


def stream(folder: Path) -> None:
    """Read every window of the folder's nights; print the windows, the seconds, and the peak memory in MiB."""
    from data.streams.windows import windows

    started = time.perf_counter()
    count = sum(1 for _ in windows(sorted(folder.glob("*.npz")), RECIPE, 15, 20))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:6d} windows{time.perf_counter() - started:8.1f} s{peak:8.0f} MiB at most")


def train(folder: str) -> None:
    """One joint pass; print the share of time in which the model waited for a batch."""
    from config import TrainingConfig
    from data.nights.folds import find_nights
    from data.store import location
    from data.streams.windows import windows
    from recsleep.losses import JointTraining, adam
    from recsleep.model import RecSleepNet

    spec = replace(SPEC, subjects=(), night_patterns=("synthetic{subject:03d}.npz",))
    config = TrainingConfig()
    model = JointTraining(RecSleepNet(), config.batch_nights, config)
    model.compile(optimizer=adam(config, config.clip_norm), jit_compile=False)
    nights = [path for paths in find_nights(spec, location(folder)).values() for path in paths]
    for _ in range(2):  # The first pass compiles.
        waited, started = 0.0, time.perf_counter()
        batches = iter(windows(nights, RECIPE, config.batch_nights, config.window_epochs))
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            model.train_on_batch(*batch)
        total = time.perf_counter() - started
    print(
        f"a training pass over {len(nights)} nights: {total:.1f} s, "
        f"of which {waited:.1f} s ({waited / total:.1%}) waiting for the next batch"
    )


def pretraining(folder: str) -> None:
    """Stream one modality of the nights; print how many epochs come a second, and a second of the processor."""
    from data.nights.folds import find_nights
    from data.store import location
    from data.streams.epochs import epochs

    shhs = DATABASES["shhs"]
    recipe = Recipe.of_nights(shhs, {"eeg": shhs.channel}, {}, scaled=True)
    nights = [path for paths in find_nights(shhs, location(folder)).values() for path in paths]
    next(iter(epochs(nights[:1], recipe, 32, [0])))  # The first batch imports what reading takes.
    used, started = time.process_time(), time.perf_counter()
    count = 32 * sum(1 for _ in epochs(nights, recipe, 32, [0]))
    used, seconds = time.process_time() - used, time.perf_counter() - started
    print(
        f"{len(nights)} nights: {count / seconds:8,.0f} epochs/s, {count / used:8,.0f} a second of the processor: "
        f"a step of 1,000 epochs/s needs {1000 * used / count:.2f} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--pretraining", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stream:
        stream(arguments.stream)
        return
    if arguments.train:
        train(arguments.train)
        return
    if arguments.pretraining:
        pretraining(arguments.pretraining)
        return
    itself = [sys.executable, "-m", "benchmarks.pipeline"]
    from benchmarks.device import machine
    from benchmarks.measure import linked
    from data.prepare.synthetic import make_night

    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        night = Path(temporary) / "night.npz"
        np.savez(night, **make_night(0, SyntheticConfig()))
        for count in (10, 30, 100, 500):
            folder = linked(Path(temporary) / str(count), (f"synthetic{n:03d}.npz" for n in range(count)), [night])
            print(f"{count:4d} nights:", end="", flush=True)
            subprocess.run([*itself, "--stream", folder], check=True)
        subprocess.run([*itself, "--train", Path(temporary) / "30"], check=True)
        with np.load(night) as arrays:
            one_channel = Path(temporary) / "one.npz"
            np.savez(one_channel, x=arrays["x"][:, 0], y=arrays["y"], fs=arrays["fs"])
        with s3_server() as environment:
            upload(one_channel, "nights", [f"synthetic{n:03d}.npz" for n in range(100)], environment)
            print("from S3, ", end="", flush=True)
            subprocess.run([*itself, "--train", "s3://nights"], check=True, env=environment)
            names = [f"shhs1-{200_001 + n}" for n in range(20)]
            arrays_of_shhs, large = like_the_shhs(), Path(temporary) / "large.npz"
            write_arrays(large, arrays_of_shhs)
            folder = linked(Path(temporary) / "npz", (f"{name}.npz" for name in names), [large])
            tables = Path(temporary) / "parquet"
            for name in names:
                write_arrays(tables / name, arrays_of_shhs)
            upload(large, "large", [f"{name}.npz" for name in names[:6]], environment)
            for what, place in (("npz", folder), ("Parquet", tables), ("npz in S3", "s3://large")):
                print(f"pretraining from {what}, ", end="", flush=True)
                subprocess.run([*itself, "--pretraining", str(place)], check=True, env=environment)
            with slow(environment["AWS_ENDPOINT_URL"], GIGABIT) as address:
                print(
                    f"over {GIGABIT / 1e6:.0f} MB/s, nights of {large.stat().st_size / 1e6:.0f} MB, ",
                    end="",
                    flush=True,
                )
                limited = environment | {"AWS_ENDPOINT_URL": address}
                subprocess.run([*itself, "--pretraining", "s3://large"], check=True, env=limited)


def like_the_shhs() -> dict[str, np.ndarray]:
    """Noise in place of eight hours of seven scaled channels."""
    channels = [channel.name for channel in DATABASES["shhs"].channels]
    x = np.random.default_rng(0).normal(size=(960, len(channels), 3000)).astype("float32")
    return {"x": x, "y": np.zeros(960, "int64"), "ch_names": np.array(channels), "fs": np.array(100)}


def upload(night: Path, bucket: str, names: Sequence[str], environment: dict[str, str]) -> None:
    """Put a night into a new bucket under each of ``names``."""
    code = (
        "import sys; from data.store import location; path, bucket, *names = sys.argv[1:]; "
        "fs = location(f's3://{bucket}').fs; fs.mkdir(bucket); [fs.put_file(path, f'{bucket}/{n}') for n in names]"
    )
    subprocess.run([sys.executable, "-c", code, night, bucket, *names], check=True, env=environment)


@contextmanager
def slow(address: str, rate: float) -> Iterator[str]:
    """The address of a relay to the server at ``address``, from which ``rate`` bytes a second come, all in all."""
    host, port = address.removeprefix("http://").split(":")
    free, loop = asyncio.Lock(), asyncio.new_event_loop()

    async def relay(source: asyncio.StreamReader, target: asyncio.StreamWriter, limited: bool) -> None:
        while block := await source.read(1 << 20):
            if limited:
                async with free:
                    await asyncio.sleep(len(block) / rate)
            target.write(block)
            await target.drain()
        target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, target = await asyncio.open_connection(host, int(port), limit=1 << 20)
        await asyncio.gather(relay(reader, target, limited=False), relay(source, writer, limited=True))

    served = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)


@contextmanager
def s3_server(port: int = 5990) -> Iterator[dict[str, str]]:
    """The environment in which AWS's libraries find a server on this machine."""
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(5)
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        yield os.environ | keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    finally:
        server.kill()


if __name__ == "__main__":
    main()
