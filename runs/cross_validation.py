"""A cross-validation of either model: which nights there are, which subjects each fold has, and the folds' training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from data.nights.folds import Split, find_nights, missing_subjects, split, with_subjects_found
from data.nights.index import NightFile, check_nights
from data.terms import InputError
from runs import workers
from runs.budget import Cost, duration, size, table
from runs.settings import Config

Result = TypeVar("Result")


def nights_and_splits(
    config: Config, data: Path, folds: Sequence[int], channels: Sequence[str], leave_out: bool = False
) -> tuple[Config, dict[int, list[NightFile]], list[Split]]:
    """What ``folds`` are trained on: the settings with the subjects found, the checked nights, and each fold's split.

    ``leave_out`` says whether a night in ``data`` without one of the ``channels`` is left out; else it is an error.

    Raises:
        InputError: there are no nights, one is damaged or lacks a channel, or a fold has too few subjects.
    """
    spec, training = config.database, config.training
    nights = find_nights(spec, data)
    if not nights:
        example = next(iter(spec.subjects), 1)
        names = " or ".join(pattern.format(subject=example) for pattern in spec.night_patterns)
        raise InputError(
            f"{data} holds no night file of {spec.db}: name another folder with --data, or give its files names such "
            f"as {names}."
        )
    spec = with_subjects_found(spec, nights)
    if missing := missing_subjects(spec, nights):
        listed = ", ".join(map(str, missing))
        print(
            f"{len(missing)} of {len(spec.subjects)} subjects have no night file in {data} and are left out: {listed}."
        )
    checked = check_nights(nights, channels, leave_out=leave_out)
    splits = [split(spec, fold, checked, training.seed, training.validation_fraction) for fold in folds]
    return replace(config, database=spec), checked, splits


def train_folds(
    train_fold: Callable[[Any], Result], tasks: Sequence[Any], jobs: int, cluster: str | None
) -> list[Result]:
    """The result of ``train_fold`` for each of ``tasks``, in the order in which they finish.

    One after another they run in this process, else each in a process of its own, here or on a cluster.
    """
    alone = jobs == 1 and cluster is None
    train_one = train_fold if alone else workers.Alone(train_fold)
    results = workers.each(train_one, tasks, jobs, cluster)
    return list(tqdm(results, total=len(tasks), desc="folds", unit="fold", disable=alone))


def rehearse_folds(rehearse: Callable[[Any], list[Cost]], tasks: Sequence[Any], jobs: int) -> None:
    """Print what training the folds of ``tasks`` will take, from a few updates of the first that are not finished.

    As many as will be trained side by side are rehearsed side by side, so that they slow each other down as much.
    """
    for first in range(0, len(tasks), jobs):
        together = [costs for costs in train_folds(rehearse, tasks[first : first + jobs], jobs, None) if costs]
        if together:
            break
    else:
        print("Every fold is finished: nothing is left to train.")
        return
    costs = [cost for fold in together for cost in fold]
    left = len(together) + len(tasks[first + jobs :])
    # The last folds may be fewer than there are processes.
    seconds = -(-left // jobs) * sum(cost.seconds for cost in costs) / len(together)
    memory = len(together) * max(cost.memory for cost in costs)
    disk = left * sum(cost.disk for cost in costs) / len(together)
    print(table(costs))
    print(f"Folds left: {left}, {jobs} at a time: about {duration(seconds)}, {size(memory)} of memory, ", end="")
    print(f"at most {size(disk)} of disk. Nothing was written into the results.")
