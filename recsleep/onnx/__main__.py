"""Trained folds as one ONNX file: ``python -m recsleep.onnx pretrained_model/sleepedfx``."""

import argparse
import sys
from pathlib import Path

import command_line


def write(arguments: argparse.Namespace) -> None:
    from recsleep.predictor import is_fold, load_stager
    from runs.saved import find_folds
    from staging.engine import ONNX

    # Loading writes the file where it is absent or of other weights.
    networks = len(load_stager(arguments.dir, arguments.db).models)
    path = find_folds(arguments.dir, arguments.db, is_fold).root / ONNX
    print(f"{path}: {networks} {'network' if networks == 1 else 'networks'}, {path.stat().st_size / 1e6:.1f} MB")


def main(arguments: list[str] | None = None) -> int:
    parser = command_line.Parser(
        prog="python -m recsleep.onnx",
        description="Write one fold, or all folds of a database as one graph, to an ONNX file in their folder.",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="a fold, a folder of folds, or one that holds DB/FOLD/")
    parser.add_argument("--db", help="database that the folds were trained on, where neither they nor DIR say it")
    parsed = parser.parse_args(arguments)
    return command_line.run(lambda: write(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
