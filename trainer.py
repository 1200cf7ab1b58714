"""Train by subject-wise cross-validation: ``python trainer.py --db isruc --from_fold 0 --to_fold 9``."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import command_line
from config import PRESETS, Config, configure
from data.databases import Database
from data.terms import MODALITIES, TASKS, InputError
from synth.terms import STRATEGIES, TCMS

STEPS = ("unimodal", "multimodal", "linear_probing", "fine_tuning")
DEFAULT_MODALITIES = ("eeg", "eog", "emg")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="trainer.py",
        description="Train RecSleepNet, or SynthSleepNet, by subject-wise cross-validation. What is finished "
        "is skipped, what was interrupted continues. Results of a fold go to OUT/DB[_SUFFIX]/FOLD/.",
    )
    parser.add_argument(
        "--db", required=True, help="database: sleepedf, sleepedfx, isruc, ucddb, shhs, synthetic or custom"
    )
    parser.add_argument(
        "--model", choices=("recsleepnet", "synthsleepnet"), default="recsleepnet", help="default recsleepnet"
    )
    of_synth = parser.add_argument_group("SynthSleepNet")
    of_synth.add_argument("--step", choices=STEPS, help="one step alone (default: all)")
    of_synth.add_argument(
        "--modality",
        action="append",
        choices=MODALITIES,
        help=f"use this one; repeatable (default {', '.join(DEFAULT_MODALITIES)})",
    )
    of_synth.add_argument(
        "--task", choices=tuple(TASKS), default="sleep_stage", help="what is learnt from labels (default sleep_stage)"
    )
    of_synth.add_argument(
        "--label_fraction",
        type=float,
        default=1.0,
        metavar="F",
        help="share of the labelled subjects' epochs that is used, such as 0.01 or 0.05 (default 1)",
    )
    of_synth.add_argument(
        "--preset", choices=tuple(PRESETS), default="paper", help="sizes and protocol (default paper)"
    )
    of_synth.add_argument(
        "--tcm", choices=TCMS, default=TCMS[0], help=f"temporal context module of fine-tuning (default {TCMS[0]})"
    )
    of_synth.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="share each batch among all devices of this machine, or of those that TF_CONFIG names",
    )
    parser.add_argument("--gpu", type=int, metavar="N", help="number of the GPU to use (default: TensorFlow's choice)")
    parser.add_argument("--from_fold", type=int, default=0, metavar="K", help="first fold (default 0)")
    parser.add_argument("--to_fold", type=int, metavar="K", help="last fold (default: the database's last)")
    parser.add_argument("--suffix", default="", metavar="S", help="appended to the result folder's name")
    parser.add_argument(
        "--data", metavar="DIR", help="folder of night files, local or such as s3://bucket/isruc (default data/DB)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("output"), metavar="DIR", help="folder of results (default output)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set a value of config.py; repeatable"
    )
    command_line.add_workers(parser, "folds")
    return parser.parse_args(arguments)


def train(arguments: argparse.Namespace) -> None:
    of_synth = arguments.model == "synthsleepnet"
    if not of_synth and (arguments.step or arguments.modality or arguments.strategy):
        raise InputError("--step, --modality and --strategy are SynthSleepNet's: add --model synthsleepnet.")
    if arguments.strategy and (arguments.jobs > 1 or arguments.cluster):
        raise InputError("--strategy shares one fold, --jobs and --cluster share the folds: give one of them.")
    if not 0 < arguments.label_fraction <= 1:
        raise InputError(f"--label_fraction {arguments.label_fraction}: it must be above 0 and at most 1.")
    config = configure(arguments.db, arguments.set, arguments.preset if of_synth else None)
    folds = _folds(config, arguments.from_fold, arguments.to_fold)
    if any(character in arguments.suffix for character in "/\\\0"):
        raise InputError(f"--suffix {arguments.suffix!r} must not hold a path separator.")
    if arguments.gpu is not None:
        if arguments.gpu < 0:
            raise InputError(f"--gpu {arguments.gpu}: a GPU's number is 0 or above.")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(arguments.gpu)

    command_line.check_workers(arguments)

    from data.nights.folds import find_nights, missing_subjects, split, with_subjects_found
    from data.nights.index import check_nights
    from data.store import anywhere, location, require_writable

    data = location(arguments.data or f"data/{config.database.db}")
    results = arguments.out / (f"{config.database.db}_{arguments.suffix}" if arguments.suffix else config.database.db)
    if arguments.cluster:
        data, results = anywhere(data), anywhere(results)
    require_writable(results)
    if config.database.db == "synthetic":
        from data.prepare.synthetic import ensure_nights

        ensure_nights(data, config.database, config.synthetic)
    modalities = _modalities(config.database, arguments.modality) if of_synth else ()
    if not config.database.channel:
        raise InputError(f"--db {config.database.db}: say which channel to stage, with --set channel=NAME.")
    nights = find_nights(config.database, data)
    if not nights:
        example = config.database.subjects[0] if config.database.subjects else 1
        names = " or ".join(pattern.format(subject=example) for pattern in config.database.night_patterns)
        raise InputError(f"{data} holds no night file of {config.database.db}: names such as {names} are looked for.")
    config = replace(config, database=with_subjects_found(config.database, nights))
    spec, training = config.database, config.training
    missing = missing_subjects(spec, nights)
    if missing:
        print(
            f"{len(missing)} of {len(spec.subjects)} subjects have no night file in {data} and are left out: "
            f"{', '.join(map(str, missing))}."
        )
    if of_synth:
        checked = check_nights(nights, [dict(spec.modalities)[name] for name in modalities], leave_out=True)
    else:
        checked = check_nights(nights, [spec.channel])
    splits = [split(spec, fold, checked, training.seed, training.validation_fraction) for fold in folds]

    from tqdm import tqdm

    from runs import workers

    alone = arguments.jobs == 1 and arguments.cluster is None
    if of_synth:
        from synth.steps.plan import FoldTask, train_fold

        steps = (arguments.step,) if arguments.step else STEPS
        wanted = (steps, modalities, arguments.task, arguments.label_fraction, arguments.tcm, arguments.strategy)
        tasks = [FoldTask(config, part, checked, results / str(part.fold), *wanted, bar=alone) for part in splits]
    else:
        from recsleep.fold import FoldTask, train_fold

        tasks = [FoldTask(config, part, checked, results / str(part.fold), bar=alone) for part in splits]
    train_one = train_fold if alone else workers.Alone(train_fold)
    done = list(
        tqdm(
            workers.each(train_one, tasks, arguments.jobs, arguments.cluster),
            total=len(tasks),
            desc="folds",
            unit="fold",
            disable=alone,
        )
    )
    if of_synth:
        print(
            f"\nIn {results}/<fold>/: unimodal/, multimodal/, linear_probing/ and fine_tuning/, with models "
            "(config.json, model.weights.h5, metadata.json), logs (log.csv, tensorboard/) and predictions on the test "
            "nights."
        )
        return
    finished = dict(done)
    pooled = sum((finished[fold] for fold in folds[1:]), finished[folds[0]])
    print(f"\nTest subjects of {_name(folds)}, pooled: {pooled.line()}\n{pooled.table()}")
    for model, accuracy, macro_f1, kappa in spec.published:
        print(
            f"published on {spec.title}, {model}: accuracy {accuracy:.3f}   macro-F1 {macro_f1:.3f}   kappa {kappa:.2f}"
        )
    print(
        f"\nIn {results}/<fold>/: the model (config.json, model.weights.h5, metadata.json, split.json), its logs "
        "(log.csv, tensorboard/), its predictions on the test nights (predictions/).\n"
        f"Evaluate again: python predict.py --db {spec.db} --dir {results} --data {data}"
    )


def _modalities(spec: Database, wanted: list[str] | None) -> tuple[str, ...]:
    """The modalities of the run, in their one order."""
    chosen = tuple(name for name in MODALITIES if name in (wanted or DEFAULT_MODALITIES))
    absent = [name for name in chosen if name not in dict(spec.modalities)]
    if absent:
        raise InputError(
            f"--db {spec.db}: config.py names no channel for {', '.join(absent)}: choose others with --modality, or "
            "name them with --set \"modalities=(('eeg', 'CHANNEL'), ...)\"."
        )
    return chosen


def _folds(config: Config, first: int, last: int | None) -> range:
    count = config.database.folds
    last = count - 1 if last is None else last
    for option, fold in (("--from_fold", first), ("--to_fold", last)):
        if not 0 <= fold < count:
            raise InputError(f"{option} {fold} is outside: {config.database.db} has folds 0 to {count - 1}.")
    if first > last:
        raise InputError(f"--from_fold {first} is above --to_fold {last}: swap them.")
    return range(first, last + 1)


def _name(folds: range) -> str:
    return f"fold {folds[0]}" if len(folds) == 1 else f"folds {folds[0]} to {folds[-1]}"


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: train(parsed), "trainer.py")


if __name__ == "__main__":
    sys.exit(main())
