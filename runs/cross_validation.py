"""A cross-validation of any model: find the nights, split the subjects into folds, and train the folds."""

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
    """What ``folds`` are trained on: the settings, completed by what was found, the checked nights, and the splits.

    Without ``modalities``, all nights in ``data`` must have the database's channel; with them, nights that lack one of
    the channels in use are left out, which is printed. ``listed`` says whether the user listed the subjects; then all
    of them must have nights.

    Raises:
        InputError: there are no nights, one is damaged or lacks a channel, a listed subject has none, or a fold has too
            few subjects.
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
        print(f"Only {spec.folds} subjects have night files, so each one is the test subject of one fold.")
        folds = [fold for fold in folds if fold < spec.folds]
        if not folds:
            raise InputError(f"--from_fold: there are only the folds 0 to {spec.folds - 1}; choose among these.")
    if missing := missing_subjects(spec, nights):
        some = f"{len(missing)} of {len(spec.subjects)} subjects"
        names = ", ".join(map(str, missing))
        if listed:
            raise InputError(f"{some} in --subjects have no night file in {data}: remove them from the list: {names}.")
        print(f"{some} have no night file in {data} and are left out: {names}.")
    channels = [spec.channel]
    usable = nights
    if modalities:
        held = channels_of(nights)
        found = with_channels_found(spec, held.values())
        wanted, channels = ([c for name in modalities for c in each.streams(name).values()] for each in (spec, found))
        for channel in (channel for channel in wanted if channel not in channels):
            lack = sum(channel not in names for names in held.values())
            print(f"{channel} is not used, because {lack} of {len(held)} nights lack it.")
        spec = found
        usable = _with_channels(nights, held, channels)
    checked = check_nights(usable, channels)
    drawn = (training.seed, training.validation_fraction, nights.keys() - usable.keys())
    return replace(config, database=spec), checked, [split(spec, fold, checked, *drawn) for fold in folds]


def _with_channels(
    nights: Mapping[int, Sequence[Path]], held: Mapping[Path, Sequence[str]], channels: Sequence[str]
) -> dict[int, list[Path]]:
    """Those of the ``nights`` that hold all ``channels``; how many lack which channel is printed.

    A night whose only channel has no name stays: its check decides later whether it can be used.
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

    With one job and no cluster they run one after another in this process, else each in its own process.
    """
    alone = jobs == 1 and cluster is None
    train_one = train_fold if alone else workers.Alone(train_fold)
    results = workers.each(train_one, tasks, jobs, cluster)
    return list(tqdm(results, total=len(tasks), desc="folds", unit="fold", disable=alone))


def rehearse_folds(rehearse: Callable[[Any], list[Cost]], tasks: Sequence[Any], jobs: int) -> None:
    """Print an estimate of what training the folds of ``tasks`` will take, from a few updates of some of them.

    Every fold that was begun is rehearsed, because each has a different part left. Of the other folds, as many are
    rehearsed at once as will be trained at once, so that they slow each other down as much; the rest are taken to need
    as long as these.
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
        """The sum of a figure over the units of each fold that is left."""
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
