"""Does pretraining help on real nights? ``python -m benchmarks.real_nights NIGHTS [FOLDER]``.

``NIGHTS`` holds night files of the UCDDB (one EEG channel), subject 18's among them, of which at least W and N3 are
scored. The network of ``tiny`` is pretrained on the nights of all other subjects, W is told from N3 by linear probing,
and figures are of subject 18, whom nothing has seen: his other stages do not count. Baseline: the same network with
random weights, whose normalisation is fitted to the same signals.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.device import machine
from benchmarks.measure import RANDOM, trainer
from data.nights.files import write_arrays
from data.terms import STAGES, UNSCORED
from runs.saved import read_metadata

FOLD, TESTED = 14, "ucddb018.npz"
MODALITIES = "modalities=(('eeg', 'EEG'),)"
SETTINGS = (MODALITIES, "scaled=true", "unimodal_passes=10", "multimodal_passes=10", "probing_passes=60")
COUNTED = [STAGES.index(stage) for stage in ("W", "N3")]
FRACTIONS = ("1", "0.05")


def link_nights(nights: Path, folder: Path) -> None:
    """Fill ``folder`` with the ``nights``, those epochs alone scored that are W or N3."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(nights.glob("ucddb*.npz")):
        with np.load(path, allow_pickle=False) as night:
            stages = np.where(np.isin(night["y"], COUNTED), night["y"], UNSCORED)
            arrays = {"x": night["x"][:, None], "y": stages, "fs": night["fs"], "ch_names": np.array(["EEG"])}
            write_arrays(folder / path.name, arrays)


def train(folder: Path, suffix: str, settings: tuple[str, ...], *options: str) -> None:
    fold = ("--from_fold", str(FOLD), "--to_fold", str(FOLD), "--suffix", suffix, "--modality", "eeg")
    command = trainer("ucddb", folder / "nights", folder, settings, *fold, *options)
    subprocess.run(command, check=True)


def main() -> None:
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "output/real_nights")
    print(machine())
    link_nights(Path(sys.argv[1]), folder / "nights")
    kinds = {"random": (*SETTINGS, *RANDOM), "pretrained": SETTINGS}
    for suffix, settings in kinds.items():
        for step in ("unimodal", "multimodal"):
            train(folder, suffix, settings, "--step", step)
        for fraction in FRACTIONS:
            train(folder, suffix, settings, "--step", "linear_probing", "--label_fraction", fraction)
    print(f"\n{'W against N3 of ' + TESTED:46}accuracy  macro-F1  kappa")
    for fraction in FRACTIONS:
        for suffix in kinds:
            where = folder / f"ucddb_{suffix}" / str(FOLD) / "linear_probing" / f"sleep_stage_{fraction}" / "eeg"
            found = read_metadata(where)["test"]
            name = f"{suffix} weights, {float(fraction):.0%} of the labels"
            print(f"{name:46}{found['accuracy']:8.3f}{found['macro_f1']:10.3f}{found['kappa']:7.3f}")


if __name__ == "__main__":
    main()
