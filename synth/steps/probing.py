"""Linear probing: how much of a task a frozen encoder's embeddings tell (Lee et al., arXiv:2502.17481, section 4)."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.metrics import f1_score

from data.terms import InputError
from evaluation.events import EventScores
from evaluation.predictions import classes, save_predictions, scores_of
from evaluation.stages import Scores
from runs import resumable
from runs.saved import METADATA, read_metadata, save_model, versions
from synth.embeddings import EmbeddedNight, Embedder, together
from synth.models.classifier import Head
from synth.steps.pretraining import FINE_TUNING, Fold, settings_of


def probe(fold: Fold, modalities: tuple[str, ...], task: str, label_fraction: float) -> Scores | EventScores | None:
    """Train a head for ``task`` on stored embeddings of labelled subjects, and test it; None if that was done before.

    The head of the pass with the best macro-F1 on the validation subjects is kept.

    Args:
        fold: what is trained on; its fusion of ``modalities`` is pretrained.
        modalities: of the encoder.
        task: one of ``config.TASKS``.
        label_fraction: share of the labelled subjects' epochs that is used, drawn by the seed.

    Raises:
        InputError: the fusion is not pretrained, a night is not scored for the task, the labels used are all the same,
            or the folder holds another run's results.
    """
    config, training, split = fold.config, fold.config.training, fold.split
    encoder = fold.folder / "multimodal" / "-".join(modalities)
    if not (encoder / METADATA).is_file():
        raise InputError(f"{encoder} holds no pretrained encoder: run --step multimodal first.")
    folder = fold.folder / "linear_probing" / f"{task}_{label_fraction:g}" / "-".join(modalities)
    run = {
        "config": resumable.json_values(settings_of(config, FINE_TUNING)),
        "split": {**split.to_json(), "labelled": list(fold.labelled)},
        "task": task,
        "label_fraction": label_fraction,
    }
    if (folder / METADATA).is_file():
        before = read_metadata(folder)
        resumable.require_same_run(folder, {name: before.get(name) for name in run}, run)
        print(f"fold {split.fold} linear probing of {task} is finished: skipped.")
        return None
    embedder = Embedder(encoder, training.multimodal_batch, not config.database.scaled, training.precision)

    def nights(part: str, subjects: tuple[int, ...]) -> list[EmbeddedNight]:
        return list(embedder.nights(fold.files(subjects), f"{part} nights", fold.bar))

    known, labels = together(nights("labelled", fold.labelled), task)
    used = drawn_labels(fold, labels, task, label_fraction)
    known, labels = known[used], labels[used]
    asked, expected = together(nights("validation", split.validation), task)
    head = _trained(fold, task, folder, (known, labels), (asked, expected))
    tested, scores = nights("test", split.test), []
    together(tested, task)
    for night in tested:
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(head(night.embeddings)))
        save_predictions(folder / "predictions" / f"{night.name}.csv", task, night.labels[task], probabilities)
        scores.append(scores_of(task, night.labels[task], probabilities))
    pooled = sum(scores[1:], scores[0])
    metadata = {"db": config.database.db, "channels": embedder.channels, "encoder": embedder.weights}
    save_model(folder, head, {**run, **metadata, "versions": versions(), "test": pooled.to_json()})
    print(f"fold {split.fold} test, linear probing of {task}: {pooled.line()}", flush=True)
    return pooled


def drawn_labels(fold: Fold, labels: np.ndarray, task: str, fraction: float) -> np.ndarray:
    """The places of those ``labels``, of the labelled subjects' scored epochs one after another, that may be used.

    Raises:
        InputError: they are all the same.
    """
    rng = np.random.default_rng((fold.config.training.seed, fold.split.fold))
    used = rng.permutation(len(labels))[: max(1, round(fraction * len(labels)))]
    held = set(labels[used])
    if len(held) < 2:
        told = "one stage alone" if task == "sleep_stage" else f"{task} in {'all' if held == {1} else 'none'} of them"
        raise InputError(
            f"fold {fold.split.fold}: the {len(used)} epochs that labels are taken of hold {told}, from which nothing "
            "can be learnt: raise --label_fraction or labelled_subjects."
        )
    return used


class _Best(keras.callbacks.Callback):
    """Keeps the weights of the pass with the best macro-F1."""

    def __init__(self, asked: np.ndarray, expected: np.ndarray) -> None:
        super().__init__()
        self.asked, self.expected = asked, expected
        self.best, self.weights = -1.0, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        found = self.model.predict(self.asked, batch_size=4096, verbose=0).argmax(axis=1)
        score = float(f1_score(self.expected, found, average="macro"))
        logs["val_macro_f1"] = score
        if score > self.best:
            self.best, self.weights = score, self.model.get_weights()


def _trained(fold: Fold, task: str, folder: Path, known: tuple, validation: tuple) -> Head:
    training = fold.config.training
    keras.utils.set_random_seed(training.seed + fold.split.fold)
    features = known[0].shape[1]
    head = Head(features, len(classes(task)), fold.config.model.head_dropout)
    model, best = keras.Sequential([keras.Input((features,)), head]), _Best(*validation)
    batch = min(training.probing_batch, len(known[0]))
    optimizer = keras.optimizers.AdamW(
        training.probing_rate * batch / 256, weight_decay=training.weight_decay, global_clipnorm=training.clip_norm
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    folder.mkdir(parents=True, exist_ok=True)
    logs = [keras.callbacks.CSVLogger(folder / "log.csv"), keras.callbacks.TensorBoard(folder / "tensorboard")]
    # The best first: what it finds is logged.
    model.fit(*known, batch_size=batch, epochs=training.probing_passes, verbose=0, callbacks=[best, *logs])
    model.set_weights(best.weights)
    return head
