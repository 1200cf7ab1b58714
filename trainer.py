"""Train by subject-wise cross-validation: ``python trainer.py --db isruc --from_fold 0 --to_fold 9``."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import command_line
from data.databases import DATABASES, Database
from data.terms import MODALITIES, TASKS, InputError
from synth.terms import DEFAULT_TCM, NEURONET_STEPS, NEURONET_TCM, STEPS, STRATEGIES, TCMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data.nights.folds import Split
    from data.nights.index import NightFile
    from evaluation.stages import Scores

DEFAULT_MODALITIES = ("eeg", "eog", "emg")
DEFAULTS = {
    "task": "sleep_stage",
    "label_fraction": 1.0,
    "preset": "paper",
    "protocol": "corrected",
    "tcm": DEFAULT_TCM,
}
"""Defaults of the options that RecSleepNet does not have."""
DEFAULTS_OF_NEURONET = {**DEFAULTS, "preset": "mini", "tcm": NEURONET_TCM}
_OF_STEPS = (
    "with models (config.json, model.weights.h5, metadata.json), logs (log.csv, tensorboard/) and predictions on the "
    "test nights, or a picture of them (embedding.png)"
)
CONTENTS = {
    "recsleepnet": "the model (config.json, model.weights.h5, model.onnx, metadata.json, split.json), its logs "
    "(log.csv, tensorboard/), its predictions on the test nights (predictions/)",
    "synthsleepnet": f"unimodal/, multimodal/, linear_probing/ and fine_tuning/, {_OF_STEPS}",
    "neuronet": f"unimodal/, linear_probing/ and fine_tuning/, {_OF_STEPS}",
}
"""What a fold's folder holds, for each model."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    # Imported here, so that a mistake in config.py is reported like any other mistake of the user.
    from config import NEURONET_PRESETS, PRESETS, PROTOCOLS
    from runs.settings import ABLATIONS, without

    parser = command_line.Parser(
        prog="trainer.py",
        description="Train RecSleepNet, SynthSleepNet, or NeuroNet by subject-wise cross-validation. Finished folds "
        "are skipped, and an interrupted training continues. A fold's results go to OUT/DB[_SUFFIX]/FOLD/.",
    )
    add = parser.add_argument
    add("--db", required=True, help=f"database: {', '.join(DATABASES)}")
    add("--model", choices=tuple(CONTENTS), default="recsleepnet", help="the model to train (default recsleepnet)")
    add_of_synth = parser.add_argument_group("SynthSleepNet and NeuroNet").add_argument
    modalities = f"train on this modality; repeatable (default {', '.join(DEFAULT_MODALITIES)})"
    share = "share of the labelled epochs to learn from, such as 0.01 or 0.05 (default 1)"
    protocol = f"training rules, explained in docs/protocols.md (default {DEFAULTS['protocol']})"
    each = " or ".join(PRESETS), " or ".join(NEURONET_PRESETS)
    sizes = (
        f"size of the model: {each[0]} for SynthSleepNet (default {DEFAULTS['preset']}), {each[1]} for NeuroNet "
        f"(default {DEFAULTS_OF_NEURONET['preset']})"
    )
    tcm = (
        f"temporal context module of fine-tuning (default {DEFAULTS['tcm']} for SynthSleepNet, {NEURONET_TCM} for "
        "NeuroNet)"
    )
    strategy = (
        "split each batch among all devices: mirrored, those of this machine; multiworker, those of the machines that "
        "TF_CONFIG names"
    )
    # They have no default here: so what the user gave can be told from what was left out.
    of_synth = [
        add_of_synth("--step", choices=STEPS, help="run only this step (default: all)"),
        add_of_synth("--modality", action="append", choices=MODALITIES, help=modalities),
        add_of_synth(
            "--task", choices=tuple(TASKS), help=f"what to learn from the labels (default {DEFAULTS['task']})"
        ),
        add_of_synth("--label_fraction", type=float, metavar="F", help=share),
        add_of_synth("--preset", choices=tuple(PRESETS | NEURONET_PRESETS), help=sizes),
        add_of_synth("--protocol", choices=tuple(PROTOCOLS), help=protocol),
        add_of_synth("--tcm", choices=TCMS, help=tcm),
        add_of_synth("--strategy", choices=STRATEGIES, help=strategy),
    ]
    init = (
        "begin with these trained weights: one fold's, or those of a folder of folds, of which each new fold takes one "
        "in turn; with SynthSleepNet or NeuroNet, a fold of another run, of which the pretrained fusion is used or, "
        "where there is none, the encoders"
    )
    add("--init", type=Path, metavar="DIR", help=init)
    spec = (
        "with --db custom: the .toml or .yaml file that python -m data.prepare read, which names the channel to stage"
    )
    add("--spec", metavar="FILE", help=spec)
    add("--gpu", type=int, metavar="N", help="number of the GPU to use (default: TensorFlow's choice)")
    add("--from_fold", type=int, default=0, metavar="K", help="first fold (default 0)")
    add("--to_fold", type=int, metavar="K", help="last fold (default: the database's last)")
    add("--suffix", default="", metavar="S", help="text to add to the result folder's name")
    add("--data", metavar="DIR", help="folder of night files, local or such as s3://bucket/isruc (default data/DB)")
    add("--subjects", metavar="FILE", help=command_line.SUBJECTS)
    add("--out", type=Path, default=Path("output"), metavar="DIR", help="folder of results (default output)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a value of config.py; repeatable")
    parts = "; ".join(f"{model}: {', '.join(parts)}" for model, parts in ABLATIONS.items())
    add(
        "--without",
        action="append",
        default=[],
        metavar="PART",
        help=f"train without this part of the model ({parts}); repeatable",
    )
    command_line.add_workers(parser, "folds")
    add("--dry-run", action="store_true", help="estimate time, memory and disk space, and train nothing")
    parsed = parser.parse_args(arguments)
    given = [option.option_strings[0] for option in of_synth if getattr(parsed, option.dest) is not None]
    if given and parsed.model == "recsleepnet":
        raise InputError(
            f"RecSleepNet has no {', '.join(given)}: leave that out, or add --model synthsleepnet or --model neuronet."
        )
    if parsed.model == "neuronet":
        _check_neuronet(parsed)
    parsed.set = [*parsed.set, *without(parsed.model, parsed.without)]
    for name, default in (DEFAULTS_OF_NEURONET if parsed.model == "neuronet" else DEFAULTS).items():
        if getattr(parsed, name) is None:
            setattr(parsed, name, default)
    if not 0 < parsed.label_fraction <= 1:
        raise InputError(f"--label_fraction {parsed.label_fraction}: give a number above 0 and at most 1.")
    return parsed


def _check_neuronet(parsed: argparse.Namespace) -> None:
    """Refuse the options that SynthSleepNet has and NeuroNet does not."""
    for option, why in (
        ("modality", "it takes one EEG channel, which --set channel=NAME names"),
        ("protocol", "it is always trained by its own protocol"),
    ):
        if getattr(parsed, option) is not None:
            raise InputError(f"NeuroNet has no --{option}: {why}; leave it out, or give --model synthsleepnet.")
    if parsed.step not in (None, *NEURONET_STEPS):
        steps = ", ".join(NEURONET_STEPS)
        raise InputError(f"NeuroNet has no --step {parsed.step}, because it uses one modality: choose one of {steps}.")
    if parsed.task not in (None, "sleep_stage"):
        raise InputError(
            f"--task {parsed.task}: NeuroNet learns only sleep stages; leave --task out, or give --model synthsleepnet."
        )


def train(arguments: argparse.Namespace) -> None:
    from runs.machine import require_tensorflow

    require_tensorflow()
    from data.nights.folds import listed_subjects
    from data.store import anywhere, location
    from data.writing import require_writable
    from runs.settings import configure

    of_synth, of_neuronet = arguments.model != "recsleepnet", arguments.model == "neuronet"
    if arguments.strategy and (arguments.jobs > 1 or arguments.cluster):
        raise InputError(
            "--strategy splits the batches of one fold, --jobs and --cluster spread the folds: give only one."
        )
    if of_synth and arguments.init:
        if arguments.dry_run:
            raise InputError("--dry-run estimates a whole training from its beginning: leave out --init or --dry-run.")
        if not arguments.init.is_dir():
            raise InputError(f"--init {arguments.init} does not exist or is not a folder: name a fold of a run.")
        if not any((arguments.init / kind).is_dir() for kind in ("unimodal", "multimodal")):
            raise InputError(
                f"--init {arguments.init} holds neither unimodal/ nor multimodal/: name a fold of another run."
            )
    if arguments.dry_run and (arguments.strategy or arguments.cluster):
        raise InputError(
            "--dry-run estimates what training on this machine alone takes: leave --strategy and --cluster out."
        )
    rules = (arguments.preset if of_synth else None, arguments.protocol, arguments.model)
    begun, assignments = [], [*_of_spec(arguments), *arguments.set]
    init = anywhere(arguments.init) if arguments.init and arguments.cluster else arguments.init
    if init and not of_synth:
        from config import ADAPTATION
        from recsleep.beginning import folds_in, sizes

        begun = folds_in(init)
        changed = [f"{name}={value}" for name, value in ADAPTATION.items()]
        assignments = [*sizes(begun[0]), *changed, *assignments]
    config = configure(arguments.db, assignments, *rules)
    if arguments.subjects:
        listed = listed_subjects(config.database, location(arguments.subjects))
        config = configure(arguments.db, [*assignments, f"subjects={listed}"], *rules)
    folds = _folds(config.database, arguments.from_fold, arguments.to_fold)
    if any(character in arguments.suffix for character in "/\\\0"):
        raise InputError(f"--suffix {arguments.suffix!r}: it becomes part of a folder's name; leave out / and \\.")
    if arguments.gpu is not None:
        if arguments.gpu < 0:
            raise InputError(f"--gpu {arguments.gpu}: give the number of a GPU, 0 or above.")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(arguments.gpu)
    command_line.check_workers(arguments)

    from runs.cross_validation import nights_and_splits, rehearse_folds, train_folds
    from runs.machine import computing

    db = config.database.db
    data = location(arguments.data or f"data/{db}")
    results = arguments.out / (f"{db}_{arguments.suffix}" if arguments.suffix else db)
    if arguments.cluster:
        data, results = anywhere(data), anywhere(results)
    require_writable(results)
    if db == "synthetic":
        from data.prepare.synthetic import ensure_nights

        ensure_nights(data, config.database, config.synthetic)
    if (not of_synth or of_neuronet) and not config.database.channel:
        raise InputError(
            f"--db {db}: name the channel to stage with --set channel=NAME, or give the --spec that names it."
        )
    wanted = ["eeg"] if of_neuronet else arguments.modality
    modalities = _modalities(config.database, wanted) if of_synth else ()
    listed_all = arguments.subjects is not None
    config, nights, splits = nights_and_splits(config, data, folds, modalities, listed_all)
    # With few subjects there are fewer folds than the database usually has.
    trained_folds = [part.fold for part in splits]

    steps = (arguments.step,) if arguments.step else NEURONET_STEPS if of_neuronet else STEPS
    alone = arguments.jobs == 1 and arguments.cluster is None
    if not arguments.cluster:
        print(computing(config.training.precision, every_gpu=bool(arguments.strategy)))
    if of_synth:
        from synth.steps import plan

        options = (steps, modalities, arguments.task, arguments.label_fraction, arguments.tcm, arguments.strategy)
        plans = [
            plan.FoldTask(config, part, nights, results / str(part.fold), *options, alone, init) for part in splits
        ]
        if arguments.dry_run:
            from synth.steps.rehearsal import rehearse_fold

            rehearse_folds(rehearse_fold, plans, arguments.jobs)
            return
        trained = dict(train_folds(plan.train_fold, plans, arguments.jobs, arguments.cluster))
    else:
        from recsleep import fold

        tasks = []
        for part in splits:
            trained_before = begun[part.fold % len(begun)] if begun else None
            tasks.append(fold.FoldTask(config, part, nights, results / str(part.fold), alone, trained_before))
        if arguments.dry_run:
            rehearse_folds(fold.rehearse_fold, tasks, arguments.jobs)
            return
        trained = dict(train_folds(fold.train_fold, tasks, arguments.jobs, arguments.cluster))
    try:
        _print_pooled(trained, splits, nights, arguments.task, results, adapted=bool(begun))
    finally:
        # Printed even if the pooled figures fail: a table of predictions of a fold finished earlier may be lost.
        if trained[trained_folds[0]]:
            command_line.print_published(config.database, [arguments.task])
        print(f"\n{results}/<fold>/ holds {CONTENTS[arguments.model]}.")
        if not of_synth or "fine_tuning" in steps:
            again = ["python", "predict.py", *(("--model", arguments.model) if of_synth else ())]
            again += ["--db", db, "--dir", str(results), "--data", str(data), "--fold", *map(str, trained_folds)]
            print(f"To evaluate again: {shlex.join(again)}")


def _print_pooled(
    trained: "dict[int, dict[str, Path]]",
    splits: "list[Split]",
    nights: "dict[int, list[NightFile]]",
    task: str,
    results: Path,
    adapted: bool,
) -> None:
    """Print and save the figures over all folds of what was ``trained``: each fold's folders by the network's name.

    If the networks were ``adapted``, their figures are compared with those from before the adaptation.
    """
    from data.writing import write_json
    from runs.saved import versions
    from staging.evaluation import tested_in_training

    folds = sorted(trained)
    name = f"fold {folds[0]}" if len(folds) == 1 else f"folds {folds[0]} to {folds[-1]}"
    # Folds that were trained in another run have another folder: its name says which folds the figures are of.
    pooled_in = results / "pooled" / name.replace(" ", "_")
    for network, folder in trained[folds[0]].items():
        pooled = tested_in_training({fold: trained[fold][network] for fold in folds}, splits, nights, task)
        of = f"{network[0].upper()}{network[1:]}, test" if network else "Test"
        print(f"\n{of} subjects of {name}, pooled: {pooled.text()}")
        saved = pooled_in / folder.relative_to(results / str(folds[0])) / "figures.json"
        told: dict[str, Any] = {"task": task, "folds": folds, **pooled.to_json(), "versions": versions()}
        if adapted:
            from evaluation.paired import BeforeAndAfter
            from recsleep.fold import BEFORE

            own = {fold: trained[fold][network] for fold in folds}
            before = tested_in_training(own, splits, nights, task, BEFORE)
            compared = BeforeAndAfter(*(cast("Mapping[int, Scores]", each.by_subject) for each in (before, pooled)))
            print(f"\n{compared.text()}")
            told["adaptation"] = compared.to_json()
        write_json(saved, told)
        print(f"These figures, with their confidence intervals, are in {saved}.")


def _of_spec(arguments: argparse.Namespace) -> list[str]:
    """The ``name=value`` assignments that follow from the file of ``--spec``: its channel, if it has only one."""
    if not arguments.spec:
        return []
    if arguments.db != "custom":
        raise InputError(f"--spec describes your own recordings: give --db custom with it, not --db {arguments.db}.")
    from data.prepare.custom import load_spec
    from data.store import location

    channels = load_spec(location(arguments.spec)).channels
    return [f"channel={channels[0].name}"] if len(channels) == 1 else []


def _modalities(spec: Database, wanted: list[str] | None) -> tuple[str, ...]:
    """The modalities of the run, in the order of ``MODALITIES``."""
    chosen = tuple(name for name in MODALITIES if name in (wanted or DEFAULT_MODALITIES))
    absent = [name for name in chosen if name not in {known for known, *_ in spec.modalities}]
    if absent:
        raise InputError(
            f"--db {spec.db} names no channel for {', '.join(absent)}: choose others with --modality, or "
            "name them with --set \"modalities=(('eeg', 'CHANNEL'), ...)\"."
        )
    return chosen


def _folds(spec: Database, first: int, last: int | None) -> range:
    """The numbers of the folds to train."""
    last = spec.folds - 1 if last is None else last
    for option, fold in (("--from_fold", first), ("--to_fold", last)):
        if not 0 <= fold < spec.folds:
            raise InputError(
                f"{option} {fold}: {spec.db} has only the folds 0 to {spec.folds - 1}; choose among these."
            )
    if first > last:
        raise InputError(f"--from_fold {first} is above --to_fold {last}: swap them.")
    return range(first, last + 1)


def main(arguments: list[str] | None = None) -> int:
    return command_line.run(lambda: train(parse(arguments)), "trainer.py")


if __name__ == "__main__":
    sys.exit(main())
