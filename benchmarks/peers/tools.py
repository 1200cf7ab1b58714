"""The commands with which each tool stages a night."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.peers.nights import Night
from recsleep.predictor import is_fold
from runs.saved import find_folds

SCRIPT = Path(__file__).with_name("stage_with.py")

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Tool:
    """A tool's name, and the command that writes the stages of a night, a table or a stage on each line, to a file."""

    name: str
    command: Callable[[Night, Path], Command]


def ours(models: Path) -> list[Tool]:
    """Our command and our function, with all folds in ``models`` and with the first; InputError if there is none."""
    folds = find_folds(models, None, is_fold).folders
    found = []
    for number, folder in {len(folds): models, 1: folds[0]}.items():
        name = f"ours, {number} fold{'s' if number > 1 else ''}"
        found.append(Tool(name, partial(_command, folder.absolute())))
        found.append(Tool(f"{name}, stages alone", partial(_function, folder.absolute())))
    return found


def _command(models: Path, night: Night, out: Path) -> Command:
    options: Command = ["--dir", models, "--channel", night.channel, "--out", out.parent]
    return [sys.executable, "predict.py", "--recording", night.recording, *options]


def _function(models: Path, night: Night, out: Path) -> Command:
    module = "benchmarks.peers.stage_with"
    return [sys.executable, "-m", module, "recsleep", night.recording, out, models, night.channel]


def peers(pythons: Mapping[str, Path], with_eog: bool) -> list[Tool]:
    """The peers, each run by the Python of its environment: with the EEG, and ``with_eog`` also with the EOG."""
    return [
        Tool(f"{peer.upper()}{' with EOG' if eog else ''}", partial(_peer, peer, python, eog))
        for eog in (False, True)[: 1 + with_eog]
        for peer, python in pythons.items()
    ]


def _peer(peer: str, python: Path, eog: bool, night: Night, out: Path) -> Command:
    # Isolated from the settings of our own environment.
    used = [night.eog if eog else "", *night.eeg]
    return [python, "-I", SCRIPT, peer, night.recording, out, *used]
