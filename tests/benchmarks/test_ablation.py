"""The table of ablations: every row is of a training that the benchmark starts, and of all its test subjects."""

from pathlib import Path

import numpy as np
import pytest

import trainer
from benchmarks import ablation
from runs.settings import configure
from synth.terms import STEPS


def test_every_row_is_of_a_training(tmp_path, monkeypatch, capsys):
    finished, matrix = set(), 8 * np.eye(5, dtype=int)
    # Of its two folds, one takes two epochs of N1 for N2.
    matrix[1, 1:3] = 6, 2

    def run(command: list[str], check: bool) -> None:
        assert check
        arguments = trainer.parse(command[2:])
        of_synth = arguments.model == "synthsleepnet"
        assert configure(arguments.db, arguments.set, arguments.preset if of_synth else None).database.folds == 2
        for fold in range(2):
            folder = arguments.out / f"synthetic_{arguments.suffix}" / str(fold)
            folder.joinpath("unimodal").mkdir(parents=True, exist_ok=True)
            labelled = Path("sleep_stage_1", "-".join(arguments.modality or trainer.DEFAULT_MODALITIES))
            for step in [arguments.step] if arguments.step else STEPS:
                finished.add(folder / step / labelled / ({"fine_tuning": arguments.tcm}.get(step, "")))
            finished.add(folder)

    def read_metadata(folder: Path) -> dict:
        assert folder in finished
        fold = next(part for part in reversed(folder.parts) if part in "01")
        return {"test": {"confusion_matrix": (matrix if fold == "0" else 8 * np.eye(5, dtype=int)).tolist()}}

    monkeypatch.setattr(ablation.subprocess, "run", run)
    monkeypatch.setattr(ablation, "read_metadata", read_metadata)
    ablation.train_all(tmp_path)
    ablation.print_table(tmp_path)
    head, *rows = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["accuracy", "macro-F1", "kappa", "F1", "of", "N1"]
    assert len(rows) == 4 + 2 * (1 + 3 + 2) + 5
    # Of N1: 14 of 16 found, none wrongly; of N2: all 16, and 2 wrongly.
    n1, n2 = 2 * 14 / (16 + 14), 2 * 16 / (16 + 18)
    for row in rows:
        accuracy, macro_f1, _, found = map(float, row.split()[-4:])
        assert (accuracy, found) == pytest.approx((78 / 80, n1), abs=5e-4)
        assert macro_f1 == pytest.approx((3 + n1 + n2) / 5, abs=5e-4)
