"""Write fine-tuned models to ONNX files: ``python -m synth.onnx output/shhs``."""

import argparse
import sys
from pathlib import Path

import command_line


def write(arguments: argparse.Namespace) -> None:
    from runs.saved import find_folds
    from staging.engine import ONNX
    from synth.predictor import is_fold, load_fold

    folds = find_folds(arguments.dir, arguments.db, is_fold, "synthsleepnet")
    for model in (model for fold in folds.folders for model in load_fold(fold)):
        # Loading writes the file if it is absent or holds other weights.
        _ = model.network
        path = model.folder / ONNX
        print(f"{path}: {model.task} by {model.variant}, {path.stat().st_size / 1e6:.1f} MB")


def main(arguments: list[str] | None = None) -> int:
    parser = command_line.Parser(
        prog="python -m synth.onnx",
        description="Write every fine-tuned model of a fold, or of all folds of a database, to an ONNX file in the "
        "model's folder.",
    )
    parser.add_argument(
        "dir", type=Path, metavar="DIR", help="a fold, a folder of folds, or a folder that holds DB/FOLD/"
    )
    parser.add_argument("--db", help="the database that the folds were trained on, if DIR holds folds of several")
    parsed = parser.parse_args(arguments)
    return command_line.run(lambda: write(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
