"""Train a network and stage a night with it, without any data: ``make demo``.

One fold of a small RecSleepNet learns from the synthetic nights of eight sleepers, and stages the recording of a ninth.
"""

import sys
from pathlib import Path

import predict
import trainer
from config import SyntheticConfig
from data.prepare.synthetic import write_recording

FOLDER, HOURS = Path("output/demo"), 2.0
TRAINING = {
    "hours": HOURS,
    "subjects": tuple(range(8)),
    "folds": 4,
    "filters": 32,
    "lstm_units": 64,
    "reconstruction_passes": 1,
    "passes": 20,
    "batch_nights": 1,
    "learning_rate": 1e-3,
    "dropout": 0.2,
}
"""Values of config.py: a smaller network and a quicker training than the published ones."""


def main() -> int:
    """Train, stage, and print where the page of the night is; return an exit code."""
    settings = [part for name, value in TRAINING.items() for part in ("--set", f"{name}={value}")]
    data, models, results = FOLDER / "nights", FOLDER / "models", FOLDER / "results"
    fold = ["--db", "synthetic", "--data", str(data), "--out", str(models), "--from_fold", "0", "--to_fold", "0"]
    code = trainer.main([*fold, *settings])
    if code:
        return code
    recording = FOLDER / "sleeper.edf"
    scoring = write_recording(recording, 8, SyntheticConfig(hours=HOURS))
    staged = ["--recording", str(recording), "--scoring", str(scoring), "--dir", str(models), "--out", str(results)]
    code = predict.main([*staged, "--overwrite"])
    if not code:
        print(f"The page of the ninth sleeper's night: {(results / 'sleeper.html').absolute()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
