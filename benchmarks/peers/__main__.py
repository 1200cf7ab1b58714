"""How well and how fast do others stage the same nights? ``python -m benchmarks.peers [NIGHT...]``.

Each tool is a process: ours (``predict.py --recording``, which writes its page, picture and all other results, and
``recsleep.stage`` alone), YASA and GSSC, which write stages alone. All read the same EEG channel of the same EDF; where
every night has an EOG, the peers are tried with it as well. They take turns. Figures are over the epochs that the
scorer scored; seconds and memory are those of the whole process and its children, from start to end.
"""

import argparse
import math
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import command_line
from data.terms import InputError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="python -m benchmarks.peers",
        description="Stage the same nights with this toolkit, YASA and GSSC, and compare figures, seconds and memory.",
    )
    add = parser.add_argument
    nights = "EDF recordings or night files (default: a synthetic recording of eight hours and seven channels)"
    add("nights", type=Path, nargs="*", metavar="NIGHT", help=nights)
    models = "folder of our folds (default ./pretrained_model/sleepedfx)"
    add("--dir", type=Path, default=Path("pretrained_model/sleepedfx"), metavar="DIR", help=models)
    add("--scoring", default="", metavar="FILE", help="a scorer's stages; {name} stands for the recording's name")
    add("--channel", default="", metavar="NAME", help="EEG channel or derivation (default: the best there is)")
    unit = "how many µV a night file's unit is (default 1; of ucddb's nights 100)"
    add("--unit", type=float, default=1.0, metavar="UV", help=unit)
    add("--rounds", type=int, default=3, metavar="N", help="runs of each tool on each night (default 3)")
    environments = "holds the peers' virtual environments, which are made there (default build/peers)"
    add("--environments", type=Path, default=Path("build/peers"), metavar="DIR", help=environments)
    return parser.parse_args(arguments)


def compare_peers(arguments: argparse.Namespace) -> None:
    """Make the peers' environments, stage all nights with all tools in turns, and print the table."""
    if arguments.rounds < 1:
        raise InputError(f"--rounds {arguments.rounds}: at least one run is needed.")
    if not 0 < arguments.unit < math.inf:
        raise InputError(f"--unit {arguments.unit:g}: a number of µV above 0 is wanted.")
    if len(arguments.nights) > 1 and arguments.scoring and "{name}" not in arguments.scoring:
        raise InputError("--scoring: with several nights, write {name} where a recording's name stands in it.")
    from benchmarks.peers.comparison import compare, shown, table
    from benchmarks.peers.environments import PACKAGES, python_of
    from benchmarks.peers.nights import open_night
    from benchmarks.peers.tools import ours, peers
    from runs.machine import processor

    own = ours(arguments.dir)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder, paths, scoring = Path(name), arguments.nights, arguments.scoring
        if not paths:
            paths, scoring = synthetic(folder)
        nights = [
            open_night(path, folder / str(number), arguments.channel, scoring, arguments.unit)
            for number, path in enumerate(paths)
        ]
        pythons = {peer: python_of(arguments.environments / peer, of) for peer, of in PACKAGES.items()}
        runs = compare([*own, *peers(pythons, all(night.eog for night in nights))], nights, arguments.rounds)
    packages = ", ".join(part for of in PACKAGES.values() for part in of)
    print(f"{processor()}; Python {platform.python_version()}, onnxruntime=={version('onnxruntime')}, {packages}")
    for night in nights:
        print(f"{night.recording.stem}: EEG {night.channel}, EOG {night.eog or 'none'}")
    print(shown(table(nights, runs, "YASA")))


def synthetic(folder: Path) -> tuple[list[Path], str]:
    """A synthetic recording, and its scoring."""
    from config import SyntheticConfig
    from data.prepare.synthetic import write_recording

    path = folder / "synthetic.edf"
    return [path], str(write_recording(path, 0, SyntheticConfig(hours=8)))


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: compare_peers(parsed), "python -m benchmarks.peers")


if __name__ == "__main__":
    sys.exit(main())
