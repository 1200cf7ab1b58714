"""Do the same work on many items: in this process, in several, or on the workers of a Dask cluster."""

import asyncio
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from data.terms import InputError, in_one_line

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""The environment variable that makes TensorFlow leave GPU memory to other processes."""

PATIENCE = 30
"""The seconds without a result after which it is looked whether a cluster still has workers."""


class Alone(Generic[Item, Result]):
    """``function``, called in a fresh process each time.

    It is for work that depends on what a whole process shares, such as TensorFlow's settings and the random generators
    that draw a network's first weights: a Dask worker has other threads, which would use them too.

    Raises:
        InputError: ``function`` raised it, or the process ended without a result.
    """

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self.function = function
        self.__module__ = function.__module__

    def __call__(self, item: Item) -> Result:
        with tempfile.TemporaryDirectory(prefix="call-") as folder:
            call, answer = Path(folder) / "call", Path(folder) / "answer"
            call.write_bytes(pickle.dumps((self.function, item)))
            # The fresh process finds modules in the same places as this one. Without -P, it would first look in the
            # working folder, which may hold another config.py. With -u, what it prints is seen at once.
            paths = {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)}
            command = [sys.executable, "-u", "-P", "-m", "runs.workers", str(call), str(answer)]
            # The fresh process ends when this one does, because then its standard input is closed.
            with subprocess.Popen(command, env=SHARED_GPU | os.environ | paths, stdin=subprocess.PIPE) as process:
                code = process.wait()
            if not answer.exists():
                raise InputError(_how_it_ended(code))
            result = pickle.loads(answer.read_bytes())  # noqa: S301 - our own process wrote it
        if isinstance(result, InputError):
            raise result
        return result


def each(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 1, cluster: str | None = None
) -> Generator[Result, None, None]:
    """The results of ``function`` for ``items``, in the order in which they are ready.

    Args:
        function: a function that every worker can import, and that handles its own errors.
        items: its arguments, which must be picklable.
        jobs: the number of processes on this machine.
        cluster: address of a Dask scheduler, such as ``tcp://scheduler:8786``, whose workers do the work instead. They
            must be able to import this project and to reach its files under the same paths.

    Raises:
        InputError: the cluster does not answer, its workers cannot do the work, or a process ended without a result.
    """
    if jobs == 1 and cluster is None:
        yield from map(function, items)
        return
    if cluster is not None:
        with _connected(cluster, function) as client:
            yield from _on_cluster(client, function, items, cluster)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with ExitStack() as stack:
        # Threads are enough to wait for processes.
        threads = {"backend": "threading"} if isinstance(function, Alone) else {}
        if not threads:
            # joblib keeps its processes for the next call. They end when they were idle for long, and joblib does not
            # notice if their replacements are killed. So they are shut down here.
            stack.callback(lambda: get_reusable_executor(reuse=True).shutdown())
            function = _WithItsParent(function)
        # A caller that stops early, as on Ctrl-C, does not need the other results, nor joblib's warning about them.
        warnings.filterwarnings("ignore", r"(?s).*unnecessary computation time", module="joblib")
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, **threads)
        try:
            yield from parallel(delayed(function)(item) for item in items)
        except TerminatedWorkerError as error:
            # joblib gives the exit codes only in its message, such as "{SIGKILL(-9)}".
            codes = map(int, re.findall(r"\((-?\d+)\)", str(error)))
            raise InputError(_how_it_ended(next(filter(None, codes), None))) from None


def _on_cluster(
    client: "Client", function: Callable[[Item], Result], items: Sequence[Item], address: str
) -> Iterator[Result]:
    """The results of a cluster's workers; it is told on the terminal if there are no workers any more."""
    from distributed import CancelledError, Future, KilledWorker
    from tqdm import tqdm

    finished: SimpleQueue[Future] = SimpleQueue()
    # The cluster does only the work whose futures are kept. Without ``pure=False``, equal items would share a result.
    futures = {future.key: future for future in client.map(function, items, pure=False)}
    for future in futures.values():
        future.add_done_callback(finished.put)
    missed = False
    while futures:
        try:
            future = finished.get(timeout=PATIENCE)
            result = future.result()
        except Empty:
            before, missed = missed, not client.scheduler_info(n_workers=1)["workers"]
            if missed and not before:
                told = (
                    f"{address} has no workers any more: start some with `dask worker {address}`; this command waits."
                )
                tqdm.write(told, file=sys.stderr)
            continue
        except KilledWorker:
            raise InputError(_how_it_ended(None)) from None
        except CancelledError:
            raise InputError(
                f"the Dask scheduler at {address} has ended: start it and its workers, and run the same command again "
                "to continue."
            ) from None
        missed = False
        del futures[future.key]
        yield result


class _WithItsParent(Generic[Item, Result]):
    """``function`` in a process that ends with its parent, so that a killed command leaves no process running."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self.function, self.parent = function, os.getpid()

    def __call__(self, item: Item) -> Result:
        _watch(self.parent)
        return self.function(item)


@lru_cache
def _watch(parent: int) -> None:
    # Ctrl-C reaches all processes of a terminal. This one is ended by its parent, without a message of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _how_it_ended(code: int | None) -> str:
    """What to tell the user about a process that ended with ``code`` (None if unknown) before it gave a result."""
    if code == -signal.SIGKILL:
        return (
            "a worker process was killed, perhaps because the memory was full: run the same command again with fewer "
            "processes (--jobs)."
        )
    if code is not None and code < 0:
        names = {known.value: known.name for known in signal.Signals}
        return (
            f"a worker process was ended by the signal {names.get(-code, -code)}: read what it printed above, or on "
            "its machine, and run the same command again to continue."
        )
    ended = "ended" if code is None else f"ended with code {code}"
    return (
        f"a worker process {ended} before its work was done: its error is printed above, or on its machine; remove the "
        "cause and run the same command again."
    )


@contextmanager
def _connected(address: str, function: Callable[..., Any]) -> Iterator["Client"]:
    """A connection to the cluster at ``address``, after checking that its workers can import ``function``."""
    try:
        from distributed import Client
        from distributed.comm import connect
    except ImportError:
        raise InputError("--cluster needs the package distributed: install it with pip install distributed.") from None

    async def knock() -> None:
        (await connect(address, timeout=10)).abort()

    try:
        # A Client that fails to connect stays half made until it is collected, and can block the start of the next.
        asyncio.run(knock())
    except (OSError, ValueError, TypeError) as error:
        reason = in_one_line(error)
        raise InputError(
            f"no Dask scheduler answers at {address} ({reason}): start one, or correct --cluster."
        ) from None
    with Client(address, timeout="10s") as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise InputError(
                f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`."
            )
        ours = ".".join(platform.python_version_tuple()[:2])
        theirs = [worker["host"]["python"] for worker in client.get_versions()["workers"].values()]
        if not all(version.startswith(f"{ours}.") for version in theirs):
            raise InputError(
                f"the workers of {address} do not run Python {ours} as this machine does: install the same version on "
                "both."
            )
        # A worker that cannot even import this module answers with an error. One that has ended meanwhile gives an
        # OSError: the others do its work.
        for worker, able in client.run(_prepare_worker, function.__module__, on_error="return").items():
            if able is not True and not isinstance(able, OSError):
                raise InputError(
                    f"worker {worker} of {address} cannot import this project: start workers in the project's folder, "
                    "with its requirements installed."
                )
        yield client


def _prepare_worker(module: str) -> bool:
    """Set a cluster worker's environment before it imports TensorFlow, and return whether it can import ``module``."""
    for name, value in SHARED_GPU.items():
        os.environ.setdefault(name, value)
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _answer(call: Path, answer: Path) -> None:
    """The part of :class:`Alone` that runs in the fresh process."""
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    function, item = pickle.loads(call.read_bytes())  # noqa: S301 - our own process wrote it
    try:
        result = function(item)
    except InputError as error:
        result = error
    except KeyboardInterrupt:
        return
    aside = answer.with_suffix(".aside")
    aside.write_bytes(pickle.dumps(result))
    aside.rename(answer)


def _end_with_the_caller() -> None:
    # os.read is used, because with sys.stdin this thread would hold a lock while the interpreter shuts down.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
