"""Evaluate trained folds on their test subjects, or stage recordings with them.

``python predict.py --db isruc --dir ./pretrained_model``
``python predict.py --recording night.edf --dir ./pretrained_model/sleepedfx --out results/``
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import command_line
from data.databases import NIGHT_PATTERN, Database, database
from data.terms import InputError

if TYPE_CHECKING:
    from evaluation.seen import OtherFolds
    from staging.evaluation import Evaluated
    from staging.predictor import Predictor

MODELS = {"recsleepnet": "recsleep.predictor", "synthsleepnet": "synth.predictor", "neuronet": "synth.predictor"}
"""The module that finds and loads the folds of each model."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="predict.py",
        description="Evaluate the trained model of each fold on the subjects that it never saw, or, with --recording, "
        "stage recordings. The models may be this toolkit's or the published RecSleepNet's TensorFlow 1 checkpoints.",
    )
    add = parser.add_argument
    models = "the model (default recsleepnet); of SynthSleepNet and NeuroNet, every fine-tuned model of a fold is used"
    add("--model", choices=tuple(MODELS), default="recsleepnet", help=models)
    add(
        "--db",
        "--dataset",
        dest="db",
        help="database (default: every database that has folds in DIR and nights in DATA)",
    )
    folds = "folder of trained models: it holds DB/FOLD/ or FOLD/, or is one fold (default ./pretrained_model)"
    add("--dir", type=Path, default=Path("pretrained_model"), metavar="DIR", help=folds)
    add("--data", metavar="DIR", help="folder of night files, local or such as s3://bucket/isruc (default data/DB)")
    add("--fold", type=int, nargs="+", metavar="K", help="folds to evaluate (default: all in DIR)")
    add("--json", type=Path, metavar="FILE", help="write the figures to this JSON file")
    tables = "write each night's probabilities to DIR/DB/FOLD/NIGHT.csv (DIR: predictions)"
    add("--save", type=Path, nargs="?", const=Path("predictions"), metavar="DIR", help=tables)
    add = parser.add_argument_group("staging recordings").add_argument
    command_line.add_recordings(add)
    channels = (
        "channel or derivation to stage, such as C3-A2 (default: up to three of the best EEG channels); repeatable, "
        "the stages of several are averaged; with SynthSleepNet, eeg=NAME, emg=NAME and so on"
    )
    add("--channel", action="append", default=[], metavar="NAME", help=channels)
    scoring = "file of a scorer's stages, to compare the model's with; {name} stands for the recording's name"
    add("--scoring", metavar="FILE", help=scoring)
    spec = (
        "a .toml or .yaml file that says how the --scoring file is written and what its labels mean, "
        "in the form that python -m data.prepare reads"
    )
    add("--spec", metavar="FILE", help=spec)
    corrections = (
        "file of corrected stages, saved from the page of a night or a table of epoch and stage; {name} stands for the "
        "recording's name"
    )
    add("--corrections", metavar="FILE", help=corrections)
    when = (
        "a clock time such as 22:58, or seconds from the start (default: what the recording's annotations say, or its"
    )
    add("--lights-off", metavar="TIME", help=f"{when} start)")
    add("--lights-on", metavar="TIME", help=f"{when} end)")
    smaller = "leave the signals out of the page, which makes its file ten times smaller"
    add("--no-signals", action="store_true", help=smaller)
    patient = "show on the page what the recording's header says about the patient, which may include the name"
    add("--show-patient", action="store_true", help=patient)
    calibration = "do not scale the signal to the amplitude of the training data"
    add("--no-calibration", action="store_true", help=calibration)
    add("--no-smoothing", action="store_true", help="decide each epoch's stage by its own probabilities alone")
    command_line.add_workers(parser, "recordings")
    return parser.parse_args(arguments)


def stage(arguments: argparse.Namespace) -> int:
    """Stage recordings, and return the exit code: 1 if some failed, else 0."""
    for option in ("data", "fold", "json", "save"):
        if getattr(arguments, option) is not None:
            raise InputError(f"--{option} belongs to the evaluation on night files: leave it out, or --recording.")
    if arguments.spec and not arguments.scoring:
        raise InputError("--spec says how the file of --scoring is written: give --scoring too.")
    sources, trained, folder = command_line.recordings_and_folders(arguments)
    from data.store import anywhere, location

    files = {}
    for option in ("scoring", "corrections"):
        files[option] = getattr(arguments, option) or ""
        if len(sources) > 1 and files[option] and "{name}" not in files[option]:
            wanted = "each recording needs its own file: write {name} where the recording's name stands in the path."
            raise InputError(f"--{option} {files[option]}: {wanted}")
        if arguments.cluster and files[option]:
            files[option] = str(anywhere(location(files[option])))
    rules = None
    if arguments.spec:
        from data.prepare.custom import load_spec

        rules = load_spec(location(arguments.spec)).rules

    from staging.batch import Models, Settings, Staging, work_on_all

    models = Models(import_module(MODELS[arguments.model]).load_stager, trained, (arguments.db,))
    calibrate, smooth = not arguments.no_calibration, not arguments.no_smoothing
    settings = Settings(
        tuple(arguments.channel),
        calibrate,
        smooth,
        files["scoring"],
        rules,
        arguments.overwrite,
        arguments.lights_off or "",
        arguments.lights_on or "",
        files["corrections"],
        not arguments.no_signals,
        arguments.show_patient,
    )
    outcomes = work_on_all(Staging, sources, models, folder, settings, arguments.jobs, arguments.cluster)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def predict(arguments: argparse.Namespace) -> int | None:
    from runs.saved import require_models

    # Checked here too, before a framework is imported, which takes seconds.
    require_models(arguments.dir, arguments.model, import_module(MODELS[arguments.model]).is_fold)
    if arguments.recording:
        return stage(arguments)
    given = vars(arguments) | {"jobs": arguments.jobs != 1}
    of_staging = (
        *("out", "channel", "scoring", "spec", "corrections", "lights_off", "lights_on", "no_signals", "show_patient"),
        *("no_calibration", "no_smoothing", "overwrite", "jobs", "cluster"),
    )
    for option in of_staging:
        if given[option]:
            option = option.replace("_", "-")
            raise InputError(
                f"--{option} belongs to the staging of recordings: name them with --recording, or leave it out."
            )
    evaluate(arguments)
    return None


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate the folds of one database, or of every one that has folds and nights here; InputError if none has."""
    from data.writing import require_writable, write_json
    from runs.saved import databases_in, versions

    for folder in (arguments.save, arguments.json and arguments.json.parent):
        if folder:
            require_writable(folder)
    if arguments.json and arguments.json.exists() and not arguments.json.is_file():
        raise InputError(f"--json {arguments.json} is a folder or a device: name a file instead.")
    held: Sequence[str | None] = [arguments.db]
    if arguments.db is None:
        held = databases_in(arguments.dir) or [None]
    reports, absences = [], []
    for db in held:
        try:
            reports.append(_evaluate_database(arguments, db))
        except InputError as error:
            # The others are evaluated even if something is missing for this one.
            if len(held) == 1:
                raise
            absences.append(str(error))
    if not reports:
        raise InputError(" ".join(absences))
    if absences:
        print("\nNot evaluated:", *absences, sep="\n  ")
    if arguments.save:
        print(f"\nProbabilities of each night: {arguments.save}/")
    if arguments.json:
        report = reports[0] if len(reports) == 1 else {"databases": reports}
        write_json(arguments.json, {**report, "versions": versions()})
        print(f"Figures: {arguments.json}")


def _evaluate_database(arguments: argparse.Namespace, db: str | None) -> dict[str, Any]:
    """Evaluate the folds of one database, print their figures, and return them as JSON values."""
    from data.nights.folds import subjects_tested
    from data.store import location
    from runs.saved import find_folds
    from staging.evaluation import Evaluated, evaluate, print_and_save

    module = import_module(MODELS[arguments.model])
    found = find_folds(arguments.dir, db, module.is_fold, arguments.model)
    there = {int(path.name): path for path in found.folders if path.name.isdecimal()}
    if not there:
        raise InputError(
            f"the folder {found.folders[0]} must have its fold's number as its name, which says on whom it is tested: "
            "rename it."
        )
    chosen = sorted(set(arguments.fold or there))
    held = [fold for fold in chosen if fold in there]
    # One fold says how the database was used. Each fold is loaded when it is evaluated: all may not fit into memory.
    first = min(held or there)
    spec = _database(module.load_fold(there[first], db or found.db)[0].metadata, db or found.db)
    outside = [fold for fold in chosen if fold not in there and not 0 <= fold < spec.folds]
    if outside:
        raise InputError(
            f"--fold {outside[0]}: {spec.db} has only the folds 0 to {spec.folds - 1}; choose among these."
        )
    if not held:
        raise InputError(
            f"{found.root} holds no trained model of fold {', '.join(map(str, chosen))}: name another folder with "
            "--dir."
        )
    data = location(arguments.data or f"data/{spec.db}")
    if spec.db == "synthetic" and arguments.db and not arguments.data:
        from config import SyntheticConfig
        from data.prepare.synthetic import ensure_nights

        ensure_nights(data, spec, SyntheticConfig())
    evaluated: list[Evaluated] = []
    published: list[Evaluated] = []
    for fold in held:
        for predictor in module.load_fold(there[fold], db or found.db):
            trained = predictor.metadata.get("db", spec.db)
            if trained != spec.db:
                raise InputError(
                    f"{there[fold]} was trained on {trained}, not on {spec.db}: give --db {trained}, or another --dir."
                )
            # Our own models record which subjects they never saw; the published models follow the published folds.
            own = predictor.metadata.get("split", {}).get("test")
            result = evaluate(predictor, fold, own or subjects_tested(spec, fold), spec, data)
            if result.missing_subjects:
                subjects = ", ".join(map(str, result.missing_subjects))
                print(f"fold {fold}: {data} holds no night file of subject {subjects}.")
            if result.nights:
                evaluated.append(result)
                if not own:
                    published.append(result)
    if not evaluated:
        raise InputError(
            f"{data} holds no night file of the subjects on whom these folds of {spec.db} are tested: name the folder "
            "of night files with --data."
        )
    figures = print_and_save(evaluated, arguments.save and arguments.save / spec.db)
    command_line.print_published(spec, {result.task for result in evaluated})
    if spec.assumption and published:
        print(
            f"Nobody has published which subjects each fold of {spec.title} was trained on: {spec.assumption}. If that "
            "is wrong, a fold may be tested on subjects that it was trained on, and its figures are too high."
        )
        if len(published) > 1:
            compared = _others_on(published, lambda fold: module.load_fold(there[fold], db or found.db)[0], spec, data)
            print(compared.text())
            figures["other_folds"] = compared.to_json()
    missing = sorted(set(chosen) - {result.fold for result in evaluated})
    if missing:
        print(f"Not evaluated, because the model or the night files are missing: fold {', '.join(map(str, missing))}.")
    # A folder that is one fold says nothing about the others.
    alone = found.folders == (found.root,)
    others = [] if arguments.fold or alone else sorted(set(range(spec.folds)) - set(there))
    if others:
        print(f"{found.root} holds {len(there)} of {spec.folds} folds; these figures are of those folds alone.")
    return {"db": spec.db, "dir": str(arguments.dir), **figures, "missing_folds": sorted({*missing, *others})}


def _others_on(
    tests: "Sequence[Evaluated]", load: "Callable[[int], Predictor]", spec: Database, data: Path
) -> "OtherFolds":
    """Compare each fold of ``tests`` with the other folds on their subjects; ``load`` gives a fold's network."""
    from staging.evaluation import evaluate, other_folds

    everyone = {subject for test in tests for subject in test.nights}
    others = [sorted(everyone - test.nights.keys()) for test in tests]
    found = [evaluate(load(test.fold), test.fold, part, spec, data) for test, part in zip(tests, others, strict=True)]
    return other_folds(tests, found)


def _database(metadata: dict[str, Any], db: str | None) -> Database:
    """The database ``db``, else the model's, with the model's own folds and night files; InputError without either."""
    name = db or metadata.get("db")
    if name is None:
        raise InputError("the folder of models does not say which database they were trained on: name it with --db.")
    spec, config = database(name), metadata.get("config")
    # Version 1 called a run's database its dataset.
    own = config.get("database", config.get("dataset")) if isinstance(config, dict) else None
    patterns, folds = (own.get("night_patterns"), own.get("folds")) if isinstance(own, dict) else (None, None)
    if isinstance(patterns, list) and all(isinstance(p, str) and NIGHT_PATTERN.fullmatch(p) for p in patterns):
        spec = replace(spec, night_patterns=tuple(patterns))
    return replace(spec, folds=folds) if isinstance(folds, int) and 1 < folds < 10_000 else spec


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: predict(parsed), "predict.py")


if __name__ == "__main__":
    sys.exit(main())
