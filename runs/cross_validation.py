"""A cross-validation of either model: which nights there are, which subjects each fold has, and the folds' training."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from data.nights.folds import (
    Split,
    find_nights,
    missing_subjects,
    split,
    with_channels_found,
    with_subjects_found,
)
from data.nights.index import NightFile, channels_of, check_nights
from data.terms import InputError
from runs import workers
from runs.budget import Cost, duration, size, table
from runs.settings import Config

Result = TypeVar("Result")


def nights_and_splits(
    config: Config, data: Path, folds: Sequence[int], modalities: Sequence[str] = (), listed: bool = False
) -> tuple[Config, dict[int, list[NightFile]], list[Split]]:
    """What ``folds`` are trained on: the settings with what was found, the checked nights, and each fold's split.

    Without ``modalities``, all nights in ``data`` must have the database's channel; with them, nights that lack one of
    the channels that are used are left out, which is said. ``listed`` says whether the subjects are those of a list, of
    whom all must have nights.

    Raises:
        InputError: there are no nights, one is damaged or lacks a channel, a subject of a list has none, or a fold has
            too few subjects.
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
    if spec.folds < config.database.folds:
        print(f"{spec.folds} subjects have night files: each is tested in a fold of its own.")
        folds = [fold for fold in folds if fold < spec.folds]
        if not folds:
            raise InputError(f"--from_fold is outside: there are folds 0 to {spec.folds - 1}.")
    if missing := missing_subjects(spec, nights):
        some = f"{len(missing)} of {len(spec.subjects)} subjects"
        names = ", ".join(map(str, missing))
        if listed:
            raise InputError(f"{some} of the list have no night file in {data}: take them off the list: {names}.")
        print(f"{some} have no night file in {data} and are left out: {names}.")
    channels = [spec.channel]
    usable = nights
    if modalities:
        held = channels_of(nights)
        found = with_channels_found(spec, held.values())
        wanted, channels = ([c for name in modalities for c in each.streams(name).values()] for each in (spec, found))
        for channel in (channel for channel in wanted if channel not in channels):
            lack = sum(channel not in names for names in held.values())
            print(f"{channel} is not used: {lack} of {len(held)} nights lack it.")
        spec = found
        usable = _with_channels(nights, held, channels)
    checked = check_nights(usable, channels)
    drawn = (training.seed, training.validation_fraction, nights.keys() - usable.keys())
    return replace(config, database=spec), checked, [split(spec, fold, checked, *drawn) for fold in folds]


def _with_channels(
    nights: Mapping[int, Sequence[Path]], held: Mapping[Path, Sequence[str]], channels: Sequence[str]
) -> dict[int, list[Path]]:
    """Those of the ``nights`` that hold all ``channels``; how many lack which is said.

    The check of a night of one channel without a name decides whether that serves.
    """
    lacking = {path: [c for c in channels if names and c not in names] for path, names in held.items()}
    numbers = Counter(channel for lacks in lacking.values() for channel in lacks)
    if numbers:
        which = ", ".join(f"{channel} in {number}" for channel, number in numbers.items())
        print(f"{sum(map(bool, lacking.values()))} of {len(held)} nights lack a channel and are left out: {which}.")
    found = {subject: [path for path in paths if not lacking[path]] for subject, paths in nights.items()}
    return {subject: paths for subject, paths in found.items() if paths}


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
    """Print what training the folds of ``tasks`` will take, from a few updates of those whose time is not known yet.

    Every fold that was begun is rehearsed, for each has another part left, and of the others as many as will be trained
    side by side, so that they slow each other down as much; the rest will take as long as these.
    """
    begun = [task for task in tasks if task.folder.is_dir() and any(task.folder.iterdir())]
    untouched = [task for task in tasks if task not in begun]
    stopped = [costs for costs in train_folds(rehearse, begun, jobs, None) if costs]
    whole = train_folds(rehearse, untouched[:jobs], jobs, None)
    rehearsed = stopped + whole
    if not rehearsed:
        print("Every fold is finished: nothing is left to train.")
        return
    costs = [cost for fold in rehearsed for cost in fold]
    more = len(untouched) - len(whole)

    def of_all(figure: str) -> list[float]:
        """The sum of a figure of each fold that is left."""
        known = [sum(getattr(cost, figure) for cost in fold) for fold in rehearsed]
        return known + more * known[-1:]

    free = [0.0] * jobs
    for seconds in of_all("seconds"):
        free[free.index(min(free))] += seconds
    left = len(rehearsed) + more
    memory = min(jobs, left) * max(cost.memory for cost in costs)
    print(table(costs))
    print(f"Folds left: {left}, {jobs} at a time: about {duration(max(free))}, {size(memory)} of memory, ", end="")
    print(f"at most {size(sum(of_all('disk')))} of disk. Nothing was written into the results.")
