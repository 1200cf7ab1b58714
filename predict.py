"""Evaluate trained folds on their test subjects, or stage recordings with them.

``python predict.py --db isruc --dir ./pretrained_model``
``python predict.py --recording night.edf --dir ./pretrained_model/sleepedfx --out results/``
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import command_line
from data.databases import ALIASES, DATABASES, Database, database
from data.terms import InputError

if TYPE_CHECKING:
    from recsleep.staging import StagedNight


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="predict.py",
        description="Evaluate trained folds, each on the subjects it never saw; with --recording, stage recordings. "
        "Reads this toolkit's models and the published RecSleepNet's TensorFlow-1 checkpoints.",
    )
    parser.add_argument(
        "--model",
        choices=("recsleepnet", "synthsleepnet"),
        default="recsleepnet",
        help="whose folds; of SynthSleepNet all that are fine-tuned (default recsleepnet)",
    )
    parser.add_argument("--db", "--dataset", dest="db", help="database (default: the only one that DIR holds)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("pretrained_model"),
        metavar="DIR",
        help="holds DB/FOLD/, or the folds themselves (default ./pretrained_model)",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of night files, local or such as s3://bucket/isruc (default data/DB)"
    )
    parser.add_argument("--fold", type=int, nargs="+", metavar="K", help="folds to evaluate (default: all in DIR)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--save",
        type=Path,
        nargs="?",
        const=Path("predictions"),
        metavar="DIR",
        help="write each night's probabilities to DIR/DB/FOLD/NIGHT.csv (DIR: predictions)",
    )
    staging = parser.add_argument_group("staging recordings")
    staging.add_argument(
        "--recording",
        nargs="+",
        metavar="FILE",
        help="recordings in any format that MNE reads, or night files; folders of them, or patterns, local or remote",
    )
    staging.add_argument("--out", metavar="DIR", help="folder of the results, local or remote (default results)")
    staging.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME",
        help="channel or derivation such as C3-A2; several are averaged (default: the best EEG channel there is); of "
        "SynthSleepNet emg=NAME and the like",
    )
    staging.add_argument(
        "--scoring", metavar="FILE", help="a scorer's stages to compare with; {name} stands for the recording's name"
    )
    staging.add_argument(
        "--no-calibration",
        action="store_true",
        help="leave the amplitude as it is instead of bringing it to that of the training data",
    )
    staging.add_argument("--overwrite", action="store_true", help="stage finished recordings again")
    return parser.parse_args(arguments)


def stage(arguments: argparse.Namespace) -> int:
    """Stage recordings; 1 if some failed."""
    for option in ("data", "fold", "json", "save"):
        if getattr(arguments, option) is not None:
            raise InputError(f"--{option} is of evaluation on night files: leave it out with --recording.")
    from data.store import location, require_writable
    from staging.recordings import find_recordings

    folder = location(arguments.out or "results")
    sources = find_recordings(arguments.recording)
    require_writable(folder)

    if arguments.model == "synthsleepnet":
        from synth.stager import load_synth_stager as load_stager
    else:
        from recsleep.stager import load_stager
    from staging.batch import Settings, stage_all, summary

    stager = load_stager(arguments.dir, arguments.db)
    print(f"models: {len(stager.models)}, of {arguments.dir}")
    settings = Settings(
        tuple(arguments.channel), not arguments.no_calibration, arguments.scoring or "", arguments.overwrite
    )
    outcomes = stage_all(sources, stager, folder, settings)
    print(summary(outcomes, folder))
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def predict(arguments: argparse.Namespace) -> int | None:
    if arguments.recording:
        return stage(arguments)
    for option in ("out", "channel", "scoring", "no_calibration", "overwrite"):
        if getattr(arguments, option):
            raise InputError(f"--{option.replace('_', '-')} is of staging: name recordings with --recording.")
    evaluate(arguments)
    return None


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate folds on the nights of the subjects they never saw."""
    spec = database(arguments.db) if arguments.db is not None else _only_database(arguments.dir)
    of_synth = arguments.model == "synthsleepnet"
    if of_synth:
        from synth.fine_tuned import is_fold
    else:
        from recsleep.tensorflow1 import is_model as is_fold
    folders, missing_folds = _folds(spec, arguments.dir, arguments.fold, is_fold)

    from data.store import location, require_writable

    data = location(arguments.data or f"data/{spec.db}")

    if spec.db == "synthetic" and not arguments.data:
        from config import SyntheticConfig
        from data.prepare.synthetic import ensure_nights

        ensure_nights(data, spec, SyntheticConfig())
    for folder in (arguments.save, arguments.json and arguments.json.parent):
        if folder:
            require_writable(folder)
    if arguments.json and arguments.json.exists() and not arguments.json.is_file():
        raise InputError(f"--json {arguments.json} is a folder or a device: name a file.")

    if of_synth:
        _predict_synth(arguments, spec, folders, data)
        return
    results: list[dict[str, Any]] = []
    staged: dict[int, list[StagedNight]] = {}
    pooled = None
    for fold, folder in folders.items():
        nights, missing_subjects = _evaluate(spec, fold, folder, data)
        if missing_subjects:
            print(f"fold {fold}: no night file of subject {', '.join(map(str, missing_subjects))} in {data}.")
        if not nights:
            missing_folds.append(fold)
            continue
        staged[fold] = nights
        scores = nights[0].scores
        for night in nights[1:]:
            scores += night.scores
        pooled = scores if pooled is None else pooled + scores
        print(f"fold {fold} ({folder}): {scores.line()}\n{scores.table()}")
        for night in nights:
            print(f"  {night.name}: {night.scores.line()}")
        print()
        results.append(
            {
                "fold": fold,
                **scores.to_json(),
                "missing_subjects": missing_subjects,
                "nights": [{"night": night.name, **night.scores.to_json()} for night in nights],
            }
        )
    if pooled is None:
        raise InputError(
            f"{data} holds no night file of the subjects that these folds test: name its folder with --data."
        )
    if missing_folds:
        print(
            f"Not evaluated, for want of a model or of night files: fold {', '.join(map(str, sorted(missing_folds)))}."
        )
    if len(results) > 1:
        print(f"{len(results)} folds pooled: {pooled.line()}\n{pooled.table()}")
    for model, accuracy, macro_f1, kappa in spec.published:
        print(
            f"published on {spec.title}, {model}: accuracy {accuracy:.3f}   macro-F1 {macro_f1:.3f}   kappa {kappa:.2f}"
        )
    _write(arguments, spec, results, pooled.to_json(), sorted(missing_folds), staged)


def _predict_synth(arguments: argparse.Namespace, spec: Database, folders: dict[int, Path], data: Path) -> None:
    from data.store import write_json
    from runs.saved import versions
    from synth.evaluation import evaluate_fold, report

    models = [model for fold, folder in folders.items() for model in evaluate_fold(spec, fold, folder, data)]
    if not models:
        raise InputError(f"{data} holds no night that these folds can be tested on: name its folder with --data.")
    told = report(models, arguments.save and arguments.save / spec.db)
    if arguments.save:
        print(f"\nProbabilities of each night, and plots: {arguments.save / spec.db}/")
    if arguments.json:
        write_json(arguments.json, {"db": spec.db, "dir": str(arguments.dir), **told, "versions": versions()})
        print(f"Figures: {arguments.json}")


def _only_database(folder: Path) -> Database:
    """The database whose folds are in ``folder``, when it was not named."""
    found = [db for db in (*DATABASES, *ALIASES) if (folder / db).is_dir()]
    if len(found) != 1:
        held = f"holds {', '.join(found)}" if found else "holds no folder named after a database"
        raise InputError(f"{folder} {held}: name the database with --db.")
    return database(found[0])


def _folds(
    spec: Database, folder: Path, wanted: list[int] | None, is_model: Callable[[Path], bool]
) -> tuple[dict[int, Path], list[int]]:
    """The folders of the wanted folds that hold a model, and the folds that do not."""
    if not folder.is_dir():
        raise InputError(f"the folder of models {folder} does not exist: name it with --dir.")
    root = next((folder / db for db in (spec.db, *ALIASES) if (folder / db).is_dir() and database(db) == spec), folder)
    numbered = {int(path.name): path for path in root.iterdir() if path.name.isdecimal()}
    there = {fold: path for fold, path in sorted(numbered.items()) if is_model(path)}
    chosen = sorted(set(wanted)) if wanted else sorted(set(range(spec.folds)) | set(there))
    outside = [fold for fold in chosen if fold not in there and not 0 <= fold < spec.folds]
    if outside:
        raise InputError(f"{spec.db} has folds 0 to {spec.folds - 1}; fold {outside[0]} is outside.")
    folders = {fold: there[fold] for fold in chosen if fold in there}
    if not folders:
        which = "any fold" if wanted is None else f"fold {', '.join(map(str, chosen))}"
        raise InputError(f"{root} holds no trained model of {which}: name the folder with --dir.")
    return folders, [fold for fold in chosen if fold not in there]


def _evaluate(spec: Database, fold: int, folder: Path, data: Path) -> "tuple[list[StagedNight], list[int]]":
    """Stage the fold's test nights; returns them and the test subjects without files."""
    from tqdm import tqdm

    from data.nights.folds import find_nights, missing_subjects, subjects_tested
    from recsleep.staging import stage_nights
    from recsleep.tensorflow1 import load_model

    model = load_model(folder)
    if model.metadata and model.metadata["db"] != spec.db:
        raise InputError(f"{folder} was trained on {model.metadata['db']}, not {spec.db}: choose with --db.")
    # Our own models say whom they never saw; the reference's follow the published folds.
    subjects = tuple(model.metadata["split"]["test"]) if model.metadata else subjects_tested(spec, fold)
    tested = replace(spec, subjects=subjects)
    nights = find_nights(tested, data)
    paths = [path for files in nights.values() for path in files]
    progress = tqdm(paths, desc=f"fold {fold}", unit="night", leave=False)
    channel = spec.channel or model.metadata["channel"]
    return list(stage_nights(model.network, progress, channel)), missing_subjects(tested, nights)


def _write(
    arguments: argparse.Namespace,
    spec: Database,
    results: list[dict[str, Any]],
    pooled: dict[str, Any],
    missing_folds: list[int],
    staged: "dict[int, list[StagedNight]]",
) -> None:
    from data.store import write_json
    from runs.saved import versions

    if arguments.save:
        for fold, nights in staged.items():
            for night in nights:
                night.save(arguments.save / spec.db / str(fold) / f"{night.name}.csv")
        print(f"\nProbabilities of each night: {arguments.save / spec.db}/<fold>/<night>.csv")
    if arguments.json:
        report = {"db": spec.db, "dir": str(arguments.dir), "folds": results, "pooled": pooled}
        write_json(arguments.json, {**report, "missing_folds": missing_folds, "versions": versions()})
        print(f"Figures: {arguments.json}")


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: predict(parsed), "predict.py")


if __name__ == "__main__":
    sys.exit(main())
