"""The same work on many items: in this process, in several, or on the workers of a Dask cluster."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from config import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 1, cluster: str | None = None
) -> Iterator[Result]:
    """``function``'s results for ``items``, as they come.

    Args:
        function: importable on every worker; it handles its own errors.
        items: can be pickled.
        jobs: processes on this machine.
        cluster: address of a Dask scheduler, such as ``tcp://scheduler:8786``, whose workers do the work instead. They
            must be able to import this project and to reach its files under the same paths.

    Raises:
        InputError: the cluster does not answer or its workers cannot do the work, or a process was killed.
    """
    if jobs == 1 and cluster is None:
        yield from map(function, items)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with ExitStack() as stack:
        if cluster is not None:
            stack.enter_context(_connected(cluster, function))
            stack.enter_context(parallel_config(backend="dask"))
            jobs = -1
        try:
            yield from Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(
                delayed(function)(item) for item in items
            )
        except TerminatedWorkerError:
            raise InputError(
                "a worker process was killed, perhaps for want of memory: give the same command with fewer --jobs."
            ) from None


@contextmanager
def _connected(address: str, function: Callable[..., Any]) -> Iterator[None]:
    """A connection to the cluster at ``address``, whose workers were found able to import ``function``."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--cluster needs the package distributed: pip install distributed.") from None
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        told = " ".join(str(error).split())[:120]
        raise InputError(f"no Dask scheduler answers at {address} ({told}): start one, or mend --cluster.") from None
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise InputError(f"the Dask scheduler at {address} has no workers: start some with dask worker {address}.")
        python = {tuple(told[:2]) for told in client.run(_python_version).values()}
        if python != {sys.version_info[:2]}:
            raise InputError(f"the workers of {address} run another version of Python than this: make them the same.")
        able = client.run(_can_import, function.__module__)
        if not all(able.values()):
            lacking = next(worker for worker, can in able.items() if not can)
            raise InputError(
                f"worker {lacking} of {address} cannot import this project: start workers in the project's folder, "
                "with its requirements installed."
            )
        yield


def _python_version() -> tuple[int, ...]:
    return tuple(sys.version_info[:2])


def _can_import(module: str) -> bool:
    import importlib

    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
