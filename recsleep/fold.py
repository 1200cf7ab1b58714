"""Train one fold of RecSleepNet; a training that was killed continues after its last finished pass."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from data.nights.files import about_of, read_about, read_arrays
from data.nights.folds import Split
from data.nights.index import NightFile
from data.nights.night import counted
from data.recipe import Recipe
from data.streams.windows import count_windows, reading, windows
from data.terms import STAGES, InputError
from data.writing import write_json
from evaluation.predictions import NightPredictions, pooled
from evaluation.stages import Scores, transitions
from recsleep.losses import JointTraining, ReconstructionTraining, adam
from recsleep.model import RecSleepNet
from recsleep.predictor import SavedFold, load_fold, median_level, of_network
from runs import identity
from runs.budget import Cost
from runs.networks import save_model
from runs.resumable import ResumableRun
from runs.saved import require_unseen
from runs.settings import recorded
from staging.predictor import predict_nights

if TYPE_CHECKING:
    from runs.settings import Config

BEFORE = "predictions_before"
"""Name of the folder with the predictions of the network that a fold began with."""


@dataclass(frozen=True)
class FoldTask:
    """One fold to train, for :class:`FoldTrainer`.

    ``bar`` says whether to show a progress bar; ``init`` is the trained network to begin with, if any.
    """

    config: "Config"
    split: Split
    nights: dict[int, list[NightFile]]
    folder: Path
    bar: bool = True
    init: SavedFold | None = None

    def __post_init__(self) -> None:
        """Raise InputError if the network ``init`` was, or may have been, trained on the fold's test nights."""
        if self.init:
            said = {**self.init.metadata, "db": self.init.db}
            tested = [night.path.name for subject in self.split.test for night in self.nights[subject]]
            require_unseen(self.init.folder, said, self.config.database.db, self.split.fold, tested)


def train_fold(task: FoldTask) -> tuple[int, dict[str, Path]]:
    """Train one fold, or find it finished, in this process.

    Returns:
        The fold's number, and the folder of its network by the network's name in print, which is empty here.

    Raises:
        InputError: the folder holds another run's results, a night could no longer be read, or the training diverged.
    """
    # The same seed gives the same weights, bit for bit.
    tf.config.experimental.enable_op_determinism()
    scores = FoldTrainer(task).train()
    print(f"fold {task.split.fold} test: {scores.line()}")
    return task.split.fold, {"": task.folder}


def rehearse_fold(task: FoldTask) -> list[Cost]:
    """What the rest of a fold's training costs; empty if the fold is finished. Errors as in :func:`train_fold`."""
    tf.config.experimental.enable_op_determinism()
    with TemporaryDirectory(prefix="rehearsal-") as folder:
        return FoldTrainer(replace(task, folder=Path(folder) / "fold")).rehearse(task.folder)


class FoldTrainer(ResumableRun):
    """Trains one fold, pass by pass.

    The order of nights and the dropout of a pass are drawn from the seed, the fold and the pass's number. If the
    network begins with trained weights, nights are calibrated to the level of its first training, as recordings are
    when they are staged. It keeps these weights if no pass is better on the validation nights, and it is tested both
    before and after.

    Args:
        task: the run's configuration, the fold's subjects, all subjects' checked night files, the folder for the fold's
            results and, until they are complete, its progress, and the network to begin with.
    """

    decided_by = identity.RECSLEEPNET
    chosen_by = ("accuracy", "macro_f1")
    rate = "learning_rate"

    def __init__(self, task: FoldTask) -> None:
        self.split = task.split
        self.files = {
            part: [night for subject in getattr(task.split, part) for night in task.nights[subject]]
            for part in ("train", "validation", "test")
        }
        nights = {part: [night.path.name for night in files] for part, files in self.files.items()}
        record: dict[str, Any] = {"config": recorded(task.config), "split": task.split.to_json(), "nights": nights}
        self.init = task.init
        record["init"] = next(iter(self.init.hashes.values())) if self.init else None
        super().__init__(task.folder, f"fold {task.split.fold}", task.config, record, task.bar)
        self.seed = (task.config.training.seed, task.split.fold)
        self.model: keras.Model | None = None

    def prepare(self) -> None:
        print(
            f"{self.title}: {len(self.split.train)} subjects train, {len(self.split.validation)} validate, "
            f"{len(self.split.test)} test.",
        )
        keras.utils.set_random_seed(sum(self.seed))
        training = self.config.training
        self.network = self.judged = RecSleepNet(**asdict(self.config.model), dtype=training.precision)
        about = read_about(self.files["train"][0].path)
        self.recipe = Recipe.of_nights(self.config.database, {"eeg": self.config.database.channel}, about)
        if self.init:
            self._begin_with(self.init)

    def _begin_with(self, trained: SavedFold) -> None:
        """Take over weights and level; InputError if the weights are damaged, or of a network of a different size."""
        weights = trained.load().get_weights()
        if [value.shape for value in weights] != [value.shape for value in self.network.get_weights()]:
            raise InputError(
                f"--init {trained.folder} holds a network of another size than --set or config.py give: leave the "
                "sizes out of --set."
            )
        self.network.set_weights(weights)
        if level := trained.recipe.level:
            self.recipe = replace(self.recipe, level=level, nights_calibrated=True)
        else:
            print(f"{self.title}: {trained.folder} does not say its level, so nights are not calibrated.")
        scored = np.unique(np.concatenate([read_arrays(night.path, ["y"])["y"] for night in self.files["train"]]))
        if forgotten := [stage for number, stage in enumerate(STAGES) if number not in scored]:
            print(
                f"{self.title}: WARNING: no training night holds {', '.join(forgotten)}, so the network will forget "
                "how "
                "to find it, which validation nights without it cannot show.",
            )
        self.best = {"pass": 0, **self._validated()}
        figures = "".join(f" {name} {self.best[name]:.3f}" for name in self.chosen_by).replace("macro_f1", "macro-F1")
        print(f"{self.title} begins with {trained.folder}: validation{figures}")

    @property
    def ended(self) -> bool:
        training = self.config.training
        if not training.patience or not self.best:
            return False
        # The passes of the first phase are not validated.
        return len(self.history) - max(self.best["pass"], training.reconstruction_passes) >= training.patience

    @property
    def steps(self) -> list[int]:
        training = self.config.training
        passes = range(training.reconstruction_passes + training.passes)
        epochs = [[night.epochs for night in self.order(number)] for number in passes]
        return [count_windows(counts, training.batch_nights, training.window_epochs) for counts in epochs]

    def about(self, number: int) -> dict[str, Any]:
        return {"pass": number + 1, "phase": self._phase(number)}

    def _phase(self, number: int) -> str:
        return "reconstruction" if number < self.config.training.reconstruction_passes else "joint"

    def order(self, number: int) -> list[NightFile]:
        """The nights of pass ``number``, in the order of training."""
        nights = list(self.files["train"])
        if self.config.training.transductive and self._phase(number) == "reconstruction":
            nights += self.files["validation"] + self.files["test"]
        return [nights[i] for i in np.random.default_rng((*self.seed, number)).permutation(len(nights))]

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

    def train_unit(self, number: int, advance: Callable[[], Any]) -> dict[str, float]:
        training = self.config.training
        if self.model is None or number == training.reconstruction_passes:
            self.model = self._compiled(self._phase(number))
        seeds = np.random.SeedSequence((*self.seed, number)).generate_state(6).reshape(3, 2)
        self.network.reseed_dropout(seeds)
        paths = [night.path for night in self.order(number)]
        figures, epochs = [], []
        with reading():
            for inputs, stages, weights in windows(paths, self.recipe, training.batch_nights, training.window_epochs):
                figures.append(self.model.train_on_batch(inputs, stages, weights, return_dict=True))
                epochs.append(float(ops.sum(weights)))
                advance()
        return {name: float(np.average([f[name] for f in figures], weights=epochs)) for name in figures[0]}

    def judge(self, number: int) -> dict[str, float | None]:
        return {} if self._phase(number) == "reconstruction" else self._validated()

    def _validated(self) -> dict[str, float | None]:
        _, scores = self._predicted("validation", self.network)
        return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1}

    def _predicted(self, part: str, network: RecSleepNet) -> tuple[list[NightPredictions], Scores]:
        paths = [night.path for night in self.files[part]]
        nights = list(predict_nights(of_network(network, self.recipe), paths))
        return nights, cast(Scores, pooled(nights))

    def _tested(self, folder: str, network: RecSleepNet) -> Scores:
        """The scores of the test nights, whose predictions are written to ``folder``."""
        nights, scores = self._predicted("test", network)
        for night in nights:
            night.save(self.folder / folder / f"{night.name}.csv")
        return scores

    def save_state(self, folder: Path) -> None:
        self.network.save_weights(folder / "network.weights.h5")
        if self.model is not None:
            self.model.save_weights(folder / "training.weights.h5")

    def load_state(self, folder: Path) -> None:
        self.network.load_weights(folder / "network.weights.h5")
        self.model = self._compiled(self._phase(len(self.history) - 1))
        self.model.load_weights(folder / "training.weights.h5")

    def finish(self) -> Scores:
        scores = self._tested("predictions", self.network)
        recipe = self.recipe
        if not recipe.level:
            recipe = recipe.calibrated_to(median_level(self.files["train"]))
        found: dict[str, Any] = {}
        if self.init:
            found["before"] = self._tested(BEFORE, self.init.load()).to_json()
        if self.best and self.best["pass"] == 0:
            print(f"{self.title}: no pass was better on the validation nights; the weights stay as before.")
        write_json(self.folder / "split.json", {name: self.record[name] for name in ("split", "nights")})
        about = {
            "db": self.config.database.db,
            "recipe": recipe.to_json(),
            "seed": sum(self.seed),
            "transitions": np.sum([self._transitions(night) for night in self.files["train"]], axis=0).tolist(),
            "best": self.best,
            "test": scores.to_json(),
            **found,
        }
        save_model(self.folder, self.network, {**self.record, **about})
        # Loading the fold writes its ONNX file, with which it will stage.
        load_fold(self.folder)
        return scores

    def result(self, metadata: dict[str, Any]) -> Scores:
        confusion = np.array(metadata["test"]["confusion_matrix"], int)
        if confusion.shape != (len(STAGES), len(STAGES)) or confusion.min() < 0 or confusion.sum() == 0:
            raise ValueError("it holds no test scores")
        return Scores(confusion)

    def _transitions(self, night: NightFile) -> np.ndarray:
        """How often each stage follows each in the learnt epochs of a night, int (5, 5); smoothing uses it."""
        arrays = read_arrays(night.path, ("y", "about"))
        return transitions(counted(arrays["y"], about_of(arrays), self.recipe.labelled_wake_minutes))
