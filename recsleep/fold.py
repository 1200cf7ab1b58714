"""Training one fold of RecSleepNet, in passes that survive being killed."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from data.nights.folds import Split
from data.nights.index import NightFile
from data.store import read_json, write_json
from data.streams.windows import count_windows, reading, windows
from data.terms import STAGES, InputError
from evaluation.stages import Scores
from recsleep.losses import JointTraining, ReconstructionTraining, adam
from recsleep.model import RecSleepNet
from recsleep.staging import StagedNight, stage_nights
from recsleep.tensorflow1 import read_metadata
from runs import resumable
from runs.saved import METADATA, save_model, versions

if TYPE_CHECKING:
    from runs.settings import Config


@dataclass(frozen=True)
class FoldTask:
    """One fold to train: what :class:`FoldTrainer` needs, and whether it shows a progress bar."""

    config: "Config"
    split: Split
    nights: dict[int, list[NightFile]]
    folder: Path
    bar: bool = True


def train_fold(task: FoldTask) -> tuple[int, Scores]:
    """Train one fold, or find it finished, in whatever process this is; returns its number and test scores.

    Raises:
        InputError: the folder holds another run's results, a night turned bad, or the training diverged.
    """
    # The same seed gives the same weights, bit for bit.
    tf.config.experimental.enable_op_determinism()
    split = task.split
    scores = finished_scores(task.folder, task.config)
    if scores is not None:
        print(f"fold {split.fold} is finished: skipped.")
    else:
        print(
            f"fold {split.fold}: {len(split.train)} subjects train, {len(split.validation)} validate, "
            f"{len(split.test)} test.",
            flush=True,
        )
        scores = FoldTrainer(task).train()
    print(f"fold {split.fold} test: {scores.line()}", flush=True)
    return split.fold, scores


class FoldTrainer:
    """Trains one fold, pass by pass; each finished pass is kept, so that a killed run continues with the next.

    Whatever is random in a pass (order of nights, dropout) is drawn from the seed, the fold and the pass's number, so a
    run that was killed and continued ends with the weights of an undisturbed one.

    Args:
        task: the run's configuration, the fold's subjects, all subjects' checked night files, and the folder of the
            fold's results and, meanwhile, its progress.

    Raises:
        InputError: the folder holds progress of a run with another configuration or other nights.
    """

    def __init__(self, task: FoldTask) -> None:
        config, split, nights = task.config, task.split, task.nights
        self.config = config
        self.split = split
        self.folder = task.folder
        self.bar = task.bar
        self.seed = (config.training.seed, split.fold)
        self.files = {
            part: [night for subject in getattr(split, part) for night in nights[subject]]
            for part in ("train", "validation", "test")
        }
        # Plain JSON values, to compare with what an interrupted run wrote.
        self.run = {
            "config": resumable.json_values(asdict(config)),
            "split": split.to_json(),
            "nights": {part: [night.path.name for night in files] for part, files in self.files.items()},
        }
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        keras.utils.set_random_seed(config.training.seed + split.fold)
        self.network = RecSleepNet(**asdict(config.model), dtype=config.training.precision)
        self.best_weights = self.network.get_weights()
        self.model: keras.Model | None = None
        self._continue()

    @property
    def total_passes(self) -> int:
        return self.config.training.reconstruction_passes + self.config.training.passes

    def train(self) -> Scores:
        """Run the passes that are left, test the best network, save it, and return its scores on the test subjects."""
        steps = [self._steps(self.order(number)) for number in range(self.total_passes)]
        done = len(self.history)
        with tqdm(
            total=sum(steps),
            initial=sum(steps[:done]),
            unit="step",
            desc=f"fold {self.split.fold}",
            mininterval=0.5,
            disable=not self.bar,
        ) as bar:
            for number in range(done, self.total_passes):
                self.one_pass(number, bar)
        return self._finish()

    def _phase(self, number: int) -> str:
        return "reconstruction" if number < self.config.training.reconstruction_passes else "joint"

    def order(self, number: int) -> list[NightFile]:
        """The nights of pass ``number`` in the order it takes them."""
        nights = list(self.files["train"])
        if self.config.training.transductive and self._phase(number) == "reconstruction":
            nights += self.files["validation"] + self.files["test"]
        return [nights[i] for i in np.random.default_rng((*self.seed, number)).permutation(len(nights))]

    def _steps(self, order: list[NightFile]) -> int:
        training = self.config.training
        return count_windows([night.epochs for night in order], training.batch_nights, training.window_epochs)

    def _compiled(self, phase: str) -> keras.Model:
        training = self.config.training
        if phase == "reconstruction":
            model, optimizer = ReconstructionTraining(self.network.encoder), adam(training)
        else:
            nights = min(training.batch_nights, len(self.files["train"]))
            model, optimizer = JointTraining(self.network, nights, training), adam(training, training.clip_norm)
        # XLA's convolutions are several times slower on a CPU than TensorFlow's own.
        model.compile(optimizer=optimizer, jit_compile=False)
        model.built = True
        optimizer.build(model.trainable_variables)
        return model

    def one_pass(self, number: int, bar: tqdm) -> None:
        """Pass ``number``: train, validate in the joint phase, keep."""
        training, phase = self.config.training, self._phase(number)
        if self.model is None or number == training.reconstruction_passes:
            self.model = self._compiled(phase)
        seeds = np.random.SeedSequence((*self.seed, number)).generate_state(6).reshape(3, 2)
        self.network.reseed_dropout(seeds)
        started, figures, epochs = time.monotonic(), [], []
        stream = windows(
            [night.path for night in self.order(number)],
            self.config.database.channel,
            training.batch_nights,
            training.window_epochs,
        )
        with reading():
            for inputs, stages, weights in stream:
                figures.append(self.model.train_on_batch(inputs, stages, weights, return_dict=True))
                epochs.append(float(ops.sum(weights)))
                bar.update()
        row = {"pass": number + 1, "phase": phase, "seconds": 0.0}
        row |= {name: float(np.average([f[name] for f in figures], weights=epochs)) for name in figures[0]}
        if not np.isfinite(row["loss"]):
            raise InputError(
                f"the loss of fold {self.split.fold} became {row['loss']} in pass {number + 1}: "
                "try a lower learning_rate with --set, and look at the nights' units."
            )
        if phase == "joint":
            self._validate(row)
        row["seconds"] = round(time.monotonic() - started, 1)
        self.history.append(row)
        # Before the pass is kept: a kill in between has it logged again, never forgotten.
        resumable.log(self.folder, self.history)
        self._keep()
        validated = (
            f"  validation accuracy {row['val_accuracy']:.3f} macro-F1 {row['val_macro_f1']:.3f}"
            if phase == "joint"
            else ""
        )
        best = " (best so far)" if self.best and self.best["pass"] == row["pass"] else ""
        bar.write(
            f"fold {self.split.fold} pass {number + 1}/{self.total_passes} {phase}: "
            f"loss {row['loss']:.4g}{validated}{best}  {row['seconds']:.0f} s"
        )

    def _validate(self, row: dict[str, Any]) -> None:
        """Score the validation subjects; the best network is the one where accuracy and macro-F1 both improve."""
        scores = self._stage("validation")[0]
        row |= {"val_accuracy": scores.accuracy, "val_macro_f1": scores.macro_f1}
        if self.best is None or (scores.accuracy > self.best["accuracy"] and scores.macro_f1 > self.best["macro_f1"]):
            self.best = {"pass": row["pass"], "accuracy": scores.accuracy, "macro_f1": scores.macro_f1}
            self.best_weights = self.network.get_weights()

    def _stage(self, part: str) -> tuple[Scores, list[StagedNight]]:
        nights = list(
            stage_nights(self.network, (night.path for night in self.files[part]), self.config.database.channel)
        )
        return sum((night.scores for night in nights[1:]), nights[0].scores), nights

    def _keep(self) -> None:
        """Keep the finished pass."""

        def fill(folder: Path) -> None:
            self.network.save_weights(folder / "network.weights.h5")
            self.model.save_weights(folder / "training.weights.h5")
            np.savez(folder / "best.npz", *self.best_weights)
            state = {"run": self.run, "history": self.history, "best": self.best}
            write_json(folder / "state.json", state)

        resumable.keep(self.folder, len(self.history), fill)

    def _continue(self) -> None:
        """Take up the newest finished pass, if there is one."""
        kept = resumable.newest(self.folder)
        if kept is None:
            return
        with resumable.restoring(kept):
            self._restore(kept)
        print(f"fold {self.split.fold} continues after pass {len(self.history)} of {self.total_passes}.")

    def _restore(self, kept: Path) -> None:
        state = read_json(kept / "state.json")
        resumable.require_same_run(self.folder, state["run"], self.run)
        self.history, self.best = state["history"], state["best"]
        if [row["pass"] for row in self.history] != list(range(1, int(kept.name) + 1)):
            raise ValueError("its history is not that of its passes")
        validated = any(row["phase"] == "joint" for row in self.history)
        if validated != (self.best is not None) or (validated and self.best.keys() != {"pass", "accuracy", "macro_f1"}):
            raise ValueError("its best pass is not known")
        self.network.load_weights(kept / "network.weights.h5")
        with np.load(kept / "best.npz", allow_pickle=False) as best:
            self.best_weights = [best[name] for name in best.files]
        if [weight.shape for weight in self.best_weights] != [w.shape for w in self.network.get_weights()]:
            raise ValueError("best.npz does not hold the network's weights")
        if len(self.history) < self.total_passes:
            self.model = self._compiled(self._phase(len(self.history) - 1))
            self.model.load_weights(kept / "training.weights.h5")

    def _finish(self) -> Scores:
        self.network.set_weights(self.best_weights)
        scores, nights = self._stage("test")
        for night in nights:
            night.save(self.folder / "predictions" / f"{night.name}.csv")
        write_json(self.folder / "split.json", {"split": self.run["split"], "nights": self.run["nights"]})
        save_model(
            self.folder,
            self.network,
            {
                **self.run,
                "db": self.config.database.db,
                "channel": self.config.database.channel,
                "seed": self.config.training.seed + self.split.fold,
                "amplitude": float(np.median([night.amplitude for night in self.files["train"]])),
                "offset": float(np.median([night.offset for night in self.files["train"]])),
                "versions": versions(),
                "best": self.best,
                "test": scores.to_json(),
            },
        )
        resumable.finish(self.folder)
        return scores


def finished_scores(folder: Path, config: "Config") -> Scores | None:
    """The test scores of the finished fold in ``folder``, or None where there is none.

    Raises:
        InputError: it was trained with another configuration, or is damaged.
    """
    if not (folder / METADATA).is_file():
        return None
    metadata = read_metadata(folder)
    try:
        before, confusion = metadata["config"], np.array(metadata["test"]["confusion_matrix"], int)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{folder / METADATA} holds no test scores: train this fold again in another folder."
        ) from None
    if confusion.shape != (len(STAGES), len(STAGES)) or confusion.min() < 0 or confusion.sum() == 0:
        raise InputError(f"{folder / METADATA} holds no test scores: train this fold again in another folder.")
    resumable.require_same_run(folder, {"config": before}, {"config": resumable.json_values(asdict(config))})
    # Left where the run was killed just after its model was complete.
    resumable.finish(folder)
    return Scores(confusion)
