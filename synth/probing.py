"""Linear probing: how much of a task a frozen encoder's embeddings tell (Lee et al., arXiv:2502.17481, section 4)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

import progress
from config import STAGES, TASKS, InputError
from data.store import written_aside
from evaluation.events import EventScores
from evaluation.metrics import Scores
from model_folder import METADATA, read_metadata, save_model, versions
from synth.downstream import Head
from synth.embedding import EmbeddedNight, Embedder, together
from synth.pretraining import Fold


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
        "config": progress.json_values(asdict(config)),
        "split": {**split.to_json(), "labelled": list(fold.labelled)},
        "task": task,
        "label_fraction": label_fraction,
    }
    if (folder / METADATA).is_file():
        before = read_metadata(folder)
        progress.require_same_run(folder, {name: before.get(name) for name in run}, run)
        print(f"fold {split.fold} linear probing of {task} is finished: skipped.")
        return None
    embedder = Embedder(encoder, training.multimodal_batch, not config.dataset.scaled, training.precision)

    def nights(part: str, subjects: tuple[int, ...]) -> list[EmbeddedNight]:
        return list(embedder.nights(fold.files(subjects), f"{part} nights", fold.bar))

    known, labels = together(nights("labelled", fold.labelled), task)
    seed = (training.seed, split.fold)
    used = np.random.default_rng(seed).permutation(len(labels))[: max(1, round(label_fraction * len(labels)))]
    known, labels = known[used], labels[used]
    if len(set(labels)) < 2:
        held = "one stage alone" if task == "sleep_stage" else f"{task} in {'all' if labels[0] else 'none'} of them"
        raise InputError(
            f"fold {split.fold}: the {len(labels)} epochs that labels are taken of hold {held}, from which nothing can "
            "be learnt: raise --label_fraction or labelled_subjects."
        )
    asked, expected = together(nights("validation", split.validation), task)
    head = _trained(fold, task, folder, (known, labels), (asked, expected))
    tested = nights("test", split.test)
    together(tested, task)
    scores = [_tested(head, night, task, folder) for night in tested]
    pooled = sum(scores[1:], scores[0])
    metadata = {"db": config.dataset.db, "channels": embedder.channels, "encoder": embedder.weights}
    save_model(folder, head, {**run, **metadata, "versions": versions(), "test": pooled.to_json()})
    print(f"fold {split.fold} test, linear probing of {task}: {pooled.line()}", flush=True)
    return pooled


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
    head = Head(features, len(STAGES) if task == "sleep_stage" else 2)
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


def _tested(head: Head, night: EmbeddedNight, task: str, folder: Path) -> Scores | EventScores:
    """The scores of one night, whose probabilities are written into ``folder``."""
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(head(night.embeddings)))
    expected = night.labels[task]
    names = STAGES if TASKS[task] == () else (f"no {task}", task)
    table = pd.DataFrame({"scored": np.array(names)[expected]})
    table["predicted"] = np.array(names)[probabilities.argmax(axis=1)]
    table[list(names)] = probabilities
    with written_aside(folder / "predictions" / f"{night.name}.csv") as aside:
        table.to_csv(aside, index=False, float_format="%.6f")
    if task == "sleep_stage":
        return Scores.of(expected, probabilities.argmax(axis=1))
    return EventScores(expected.astype(bool), probabilities[:, 1])
