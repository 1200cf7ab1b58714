"""Train by subject-wise cross-validation: ``python trainer.py --db isruc --from_fold 0 --to_fold 9``."""

import argparse
import os
import sys
from pathlib import Path

import command_line
from config import Config, InputError, configure


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="trainer.py",
        description="Train RecSleepNet by subject-wise cross-validation. A finished fold is skipped, "
        "an interrupted one continues. Results of a fold go to OUT/DB[_SUFFIX]/FOLD/.",
    )
    parser.add_argument("--db", required=True, help="database: sleepedf, sleepedfx, isruc, ucddb or synthetic")
    parser.add_argument("--gpu", type=int, metavar="N", help="number of the GPU to use (default: TensorFlow's choice)")
    parser.add_argument("--from_fold", type=int, default=0, metavar="K", help="first fold (default 0)")
    parser.add_argument("--to_fold", type=int, metavar="K", help="last fold (default: the database's last)")
    parser.add_argument("--suffix", default="", metavar="S", help="appended to the result folder's name")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of night files (default data/DB)")
    parser.add_argument(
        "--out", type=Path, default=Path("output"), metavar="DIR", help="folder of results (default output)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set a value of config.py; repeatable"
    )
    return parser.parse_args(arguments)


def train(arguments: argparse.Namespace) -> None:
    config = configure(arguments.db, arguments.set)
    folds = _folds(config, arguments.from_fold, arguments.to_fold)
    if any(character in arguments.suffix for character in "/\\\0"):
        raise InputError(f"--suffix {arguments.suffix!r} must not hold a path separator.")
    if arguments.gpu is not None:
        if arguments.gpu < 0:
            raise InputError(f"--gpu {arguments.gpu}: a GPU's number is 0 or above.")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(arguments.gpu)

    from data.folds import find_nights, missing_subjects, split
    from data.night import check_nights
    from data.store import require_writable

    spec, training = config.dataset, config.training
    data = arguments.data or Path("data") / spec.db
    results = arguments.out / (f"{spec.db}_{arguments.suffix}" if arguments.suffix else spec.db)
    require_writable(results)
    if spec.db == "synthetic":
        from data.prepare.synthetic import ensure_nights

        ensure_nights(data, spec, config.synthetic)
    nights = find_nights(spec, data)
    if not nights:
        names = " or ".join(pattern.format(subject=spec.subjects[0]) for pattern in spec.night_patterns)
        raise InputError(f"{data} holds no night file of {spec.db}: names such as {names} are looked for.")
    missing = missing_subjects(spec, nights)
    if missing:
        print(
            f"{len(missing)} of {len(spec.subjects)} subjects have no night file in {data} and are left out: "
            f"{', '.join(map(str, missing))}."
        )
    splits = [split(spec, fold, nights, training.seed, training.validation_fraction) for fold in folds]
    checked = check_nights(nights, spec.channel)

    import tensorflow as tf

    from recsleep.fold import FoldTrainer, finished_scores

    # The same seed gives the same weights, bit for bit.
    tf.config.experimental.enable_op_determinism()
    pooled = None
    for part in splits:
        folder = results / str(part.fold)
        scores = finished_scores(folder, config)
        if scores is not None:
            print(f"fold {part.fold} is finished: skipped.")
        else:
            print(
                f"fold {part.fold}: {len(part.train)} subjects train, {len(part.validation)} validate, "
                f"{len(part.test)} test."
            )
            scores = FoldTrainer(config, part, checked, folder).train()
        print(f"fold {part.fold} test: {scores.line()}")
        pooled = scores if pooled is None else pooled + scores
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


def _folds(config: Config, first: int, last: int | None) -> range:
    count = config.dataset.folds
    last = count - 1 if last is None else last
    for option, fold in (("--from_fold", first), ("--to_fold", last)):
        if not 0 <= fold < count:
            raise InputError(f"{option} {fold} is outside: {config.dataset.db} has folds 0 to {count - 1}.")
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
