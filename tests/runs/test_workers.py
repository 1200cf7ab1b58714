"""Worker processes that end before their work is done, and what their environment holds."""

import os
import signal
import sys
from pathlib import Path

import pytest

from data.terms import InputError
from runs.workers import Alone, each

pytestmark = pytest.mark.long


def end(how: str | int) -> str:
    """End this process by the signal of that name, with that exit code, or by an error."""
    if isinstance(how, int):
        os._exit(how)
    if how == "error":
        raise RuntimeError("the reason")
    if how == "SystemExit":
        sys.exit(4)
    os.kill(os.getpid(), signal.Signals[how])
    return "still there"


ENDS = [
    ("SIGKILL", "was killed, perhaps because the memory was full: run the same command again with fewer"),
    ("SIGSEGV", "was ended by the signal SIGSEGV"),
    ("SIGTERM", "was ended by the signal SIGTERM"),
    (3, "ended with code 3 before its work was done: its error is printed above"),
]


@pytest.mark.parametrize(
    ("how", "message"), [*ENDS, (0, "with code 0"), ("error", "with code 1"), ("SystemExit", "with code 4")]
)
def test_the_end_of_a_fresh_process_is_explained(how, message, capfd):
    with pytest.raises(InputError, match=message) as error:
        Alone(end)(how)
    assert "memory" in str(error.value) or how != "SIGKILL"
    assert "memory" not in str(error.value) or how == "SIGKILL"
    assert ("RuntimeError: the reason" in capfd.readouterr().err) == (how == "error")


@pytest.mark.parametrize(("how", "message"), ENDS)
def test_the_end_of_a_process_among_several_is_explained(how, message):
    with pytest.raises(InputError, match=message):
        list(each(end, [how], jobs=2))


def test_the_end_of_a_fresh_process_among_several_is_explained():
    with pytest.raises(InputError, match="SIGSEGV"):
        list(each(Alone(end), ["SIGSEGV", "SIGSEGV"], jobs=2))


def process(_: int) -> int:
    return os.getpid()


def test_no_process_outlives_its_work():
    """One that waits for the next call would leave in between, and the death of its successor would go unnoticed."""
    for worker in list(each(process, range(2), jobs=2)):
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_who_stops_early_is_not_warned_of_the_rest(recwarn):
    results = each(process, range(20), jobs=2)
    next(results)
    results.close()
    assert not recwarn.list


def gpu_memory(_: int) -> str | None:
    return os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH")


@pytest.mark.parametrize("workers", [{"jobs": 2}, {"cluster": True}])
@pytest.mark.parametrize("function", [gpu_memory, Alone(gpu_memory)], ids=["plain", "alone"])
def test_processes_share_the_memory_of_a_gpu(workers, function, dask_cluster, monkeypatch):
    """Processes of this machine inherit the variable from the command; a cluster's workers were started without it."""
    if "cluster" in workers:
        monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
        workers = {"cluster": dask_cluster}
    else:
        monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    assert list(each(function, range(2), **workers)) == ["true", "true"]


def test_a_cluster_without_the_project_is_refused(cluster_without_the_project):
    with pytest.raises(InputError, match="cannot import this project: start workers in the project's folder"):
        list(each(Alone(gpu_memory), range(2), cluster=cluster_without_the_project))


def test_the_others_do_the_work_of_a_worker_that_ends_when_it_is_asked(fatal, tmp_path):
    address, double = fatal
    assert list(each(double, range(4), cluster=address)) == [0, 2, 4, 6]
    assert (tmp_path / "killed").exists()


def fall(item: tuple[Path, int]) -> int:
    """The number of this process, after as many of them have been killed as ``item`` says."""
    folder, times = item
    killed = len(list(folder.iterdir()))
    if killed < times:
        (folder / str(killed)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_cluster_with_one_thread_does_the_work_and_is_waited_for(small_cluster, tmp_path, monkeypatch, capfd):
    """The worker that takes its place comes after seconds; the work that kills each of them is given up."""
    monkeypatch.setattr("runs.workers.PATIENCE", 0.1)
    results = each(fall, [(tmp_path, 1)], cluster=small_cluster)
    assert next(results) != os.getpid()
    assert capfd.readouterr().err.count(f"{small_cluster} has no workers any more: start some with `dask worker") == 1
    with pytest.raises(InputError, match="a worker process ended before its work was done"):
        list(each(fall, [(tmp_path, 9)], cluster=small_cluster))


def test_a_command_sets_it_and_a_user_may_set_it_otherwise(monkeypatch):
    import command_line

    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    found = []
    command_line.run(lambda: found.append(gpu_memory(0)), "test")
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    command_line.run(lambda: found.append(Alone(gpu_memory)(0)), "test")
    assert found == ["true", "false"]
