"""What is compared: each tool's stages, and what it takes to make them."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.peers.nights import Night
from benchmarks.peers.tools import Tool
from data.recordings.recording import open_recording
from data.scorings.any_form import read_scoring
from data.terms import UNSCORED, InputError
from evaluation.stages import Scores

MEASURED = Path(__file__).with_name("measured.py")

TOOK = {"processor s": "processor", "wall s": "wall", "peak MiB": "memory"}
"""What a process took, by the table's columns."""


@dataclass(frozen=True)
class Run:
    """A tool's stages int32 (epochs,) of a night, and what the process took: seconds, seconds and MiB."""

    stages: np.ndarray
    processor: float
    wall: float
    memory: float


def run(tool: Tool, night: Night) -> Run:
    """Stage a night as a process; InputError with the last line of its errors if it fails."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        out = Path(folder) / f"{night.recording.stem}.hypnogram.csv"
        command = [sys.executable, "-I", MEASURED, *tool.command(night, out)]
        ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace")
        if ran.returncode or not out.exists():
            reason = (ran.stderr.strip().splitlines() or ["it wrote no stages"])[-1]
            raise InputError(f"{tool.name} cannot stage {night.recording}: {reason}")
        with open_recording(night.recording) as recording:
            stages = read_scoring(out, recording).stages
    return Run(stages, **json.loads(ran.stdout.splitlines()[-1]))


def compare(tools: Sequence[Tool], nights: Sequence[Night], rounds: int) -> dict[str, list[list[Run]]]:
    """The runs of each tool, some of every night; the tools take turns, so that all meet the same disturbances."""
    runs: dict[str, list[list[Run]]] = {tool.name: [[] for _ in nights] for tool in tools}
    with tqdm(total=(1 + rounds * len(nights)) * len(tools), unit="run", smoothing=0) as bar:

        def ran(tool: Tool, night: Night) -> Run:
            bar.set_description(f"{night.recording.stem}: {tool.name}")
            done = run(tool, night)
            bar.update()
            return done

        # Whatever a first run compiles or converts is not counted.
        for tool in tools:
            ran(tool, nights[0])
        for number, night in enumerate(nights):
            for _ in range(rounds):
                for tool in tools:
                    runs[tool.name][number].append(ran(tool, night))
    return runs


def agreement(scored: np.ndarray | None, staged: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    """Each tool's agreement with the scorer, over the epochs (epochs,) that the scorer and all tools gave a stage."""
    if scored is None:
        return {}
    known = np.all([stages != UNSCORED for stages in (scored, *staged.values())], axis=0)
    return {name: Scores.of(scored[known], stages[known]) for name, stages in staged.items()}


def table(nights: Sequence[Night], runs: Mapping[str, Sequence[Sequence[Run]]], reference: str) -> pd.DataFrame:
    """A row per tool: figures of all scored nights together, and medians of the runs, averaged over the nights.

    ``of NAME`` is the ratio of processor seconds to those of the tool ``reference``.
    """
    pooled: dict[str, Scores] = {}
    for number, night in enumerate(nights):
        staged = {name: of_nights[number][-1].stages for name, of_nights in runs.items()}
        for name, scores in agreement(night.scored, staged).items():
            pooled[name] = pooled[name] + scores if name in pooled else scores
    rows = {}
    for name, of_nights in runs.items():
        took = {
            column: statistics.mean(statistics.median(getattr(each, what) for each in night) for night in of_nights)
            for column, what in TOOK.items()
        }
        rows[name] = _figures(pooled.get(name)) | took
    found = pd.DataFrame.from_dict(rows, orient="index")
    found[f"of {reference}"] = found["processor s"] / found.loc[reference, "processor s"]
    return found


def _figures(scores: Scores | None) -> dict[str, float]:
    if scores is None:
        return {}
    by_stage = {f"F1 {stage}": f1 for stage, f1 in scores.by_stage["F1"].items()}
    whole = {"accuracy": scores.accuracy, "macro-F1": scores.macro_f1, "kappa": scores.kappa}
    return {"epochs": scores.epochs, **whole, **by_stage}


def shown(found: pd.DataFrame) -> str:
    """The table as text."""
    digits = {"epochs": 0, "processor s": 1, "wall s": 1, "peak MiB": 0, "of YASA": 2}
    formats = {str(name): f"{{:.{digits.get(str(name), 3)}f}}".format for name in found}
    return found.to_string(formatters=formats, na_rep="-")
