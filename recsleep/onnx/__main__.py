"""Write trained folds to one ONNX file: ``python -m recsleep.onnx pretrained_model/sleepedfx``."""

import argparse
import sys
from pathlib import Path

import command_line


def write(arguments: argparse.Namespace) -> None:
    from recsleep.predictor import is_fold, load_stager
    from runs.saved import find_folds
    from staging.engine import ONNX

    # Loading writes the file if it is absent or holds other weights.
    networks = len(load_stager(arguments.dir, arguments.db).models)
    path = find_folds(arguments.dir, arguments.db, is_fold).root / ONNX
    print(f"{path}: {networks} {'network' if networks == 1 else 'networks'}, {path.stat().st_size / 1e6:.1f} MB")


def main(arguments: list[str] | None = None) -> int:
    parser = command_line.Parser(
        prog="python -m recsleep.onnx",
        description="Write an ONNX file into the folder DIR, with the network of one fold, or with those of all folds "
        "of a database, whose probabilities it averages.",
    )
    parser.add_argument(
        "dir", type=Path, metavar="DIR", help="a fold, a folder of folds, or a folder that holds DB/FOLD/"
    )
    database = "the database that the folds were trained on, if neither their metadata nor DIR tell it"
    parser.add_argument("--db", help=database)
    parsed = parser.parse_args(arguments)
    return command_line.run(lambda: write(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
