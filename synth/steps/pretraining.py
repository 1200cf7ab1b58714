"""Pretraining of a fold without labels, in rounds that survive being killed: a NeuroNet of each modality, then fusion.

Scoring chooses the best network alone, on validation subjects: how well an epoch's nearest neighbours among labelled
training subjects tell its stage (Lee et al., arXiv:2502.17481, section 4).
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from data.nights.folds import Split
from data.nights.index import NightFile
from data.nights.night import read_night
from data.store import read_json, write_json
from data.streams.epochs import epochs
from data.streams.windows import reading
from data.terms import UNSCORED, InputError
from runs import resumable
from runs.saved import METADATA, load_model, read_metadata, save_model, versions
from synth.embeddings import embed_night
from synth.learner import Learner, reseed_dropout
from synth.models.fusion import SynthSleepNet
from synth.models.neuronet import NeuroNet, NeuroNetEncoder, adopt
from synth.replicas import Replicas

if TYPE_CHECKING:
    from runs.settings import Config

FINE_TUNING = ("fine_tuning", "stretch", "adaptation", "validation_nights", "frozen_gib")
"""How the names of those values begin that fine-tuning alone depends on."""
LABELS = ("probing", "head", *FINE_TUNING)
"""The same of all steps that learn from labels."""


@dataclass(frozen=True)
class Fold:
    """What all steps of a fold share: its subjects, their checked night files, and the folder of its results."""

    config: "Config"
    split: Split
    labelled: tuple[int, ...]
    """The training subjects whose scoring may be used."""
    nights: dict[int, list[NightFile]]
    folder: Path
    replicas: Replicas
    bar: bool = True

    def files(self, subjects: tuple[int, ...]) -> list[NightFile]:
        return [night for subject in subjects for night in self.nights[subject]]


class Pretraining:
    """One network's pretraining, round by round; each finished round is kept, so that a killed run continues.

    A pass takes all nights of the training subjects in an order of its own, ``round_nights`` of them a round. All that
    is random in a round (order, masks, dropout) is drawn from the seed, the fold, the step and the round's number.

    Args:
        fold: what is trained on.
        name: of the step, and of its folder in the fold's.
        modalities: what the network sees.
        network: new, or with the weights it is to begin with.
        passes: over all nights.
        batch: epochs in a batch.
        mask_ratio: share of the frames that is hidden.

    Raises:
        InputError: the folder holds progress of a run with another configuration or other nights.
    """

    def __init__(
        self,
        fold: Fold,
        name: str,
        modalities: tuple[str, ...],
        network: NeuroNet | SynthSleepNet,
        passes: int,
        batch: int,
        mask_ratio: float,
    ) -> None:
        self.fold, self.name, self.network, self.mask_ratio = fold, name, network, mask_ratio
        self.folder = fold.folder / name
        training, dataset = fold.config.training, fold.config.database
        self.channels = {modality: dict(dataset.modalities)[modality] for modality in modalities}
        # Settles all draws of this step, unlike those of others.
        self.seed = (training.seed, fold.split.fold, *name.encode())
        self.nights = fold.files(fold.split.train)
        there = sum(night.epochs for night in self.nights)
        if batch % fold.replicas.count:
            raise InputError(f"batches of {batch} epochs cannot be shared by {fold.replicas.count} devices evenly.")
        self.batch = batch if there >= batch else max(there // fold.replicas.count, 1) * fold.replicas.count
        self.accumulation = min(training.accumulation, max(there // self.batch, 1))
        self.rounds = list(self._rounds(passes))
        self.learner = Learner(
            network,
            self._losses,
            rate=training.pretraining_rate * self.batch * self.accumulation / 256,
            updates=sum(self._updates(nights) for _, nights in self.rounds),
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            accumulation=self.accumulation,
            replicas=fold.replicas,
        )
        self.embed = tf.function(self._embed)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights = network.encoder.get_weights()
        later = (*LABELS, "fusion", "multimodal") if name.startswith("unimodal") else LABELS
        self.run = {
            "config": resumable.json_values(settings_of(fold.config, later)),
            "split": {**fold.split.to_json(), "labelled": list(fold.labelled)},
            "nights": [night.path.name for night in self.nights],
            "channels": self.channels,
        }

    def _rounds(self, passes: int) -> Iterator[tuple[int, list[NightFile]]]:
        """The pass and the nights of each round."""
        size = self.fold.config.training.round_nights
        for number in range(passes):
            order = np.random.default_rng((*self.seed, number)).permutation(len(self.nights))
            for first in range(0, len(order), size):
                yield number, [self.nights[i] for i in order[first : first + size]]

    def _updates(self, nights: list[NightFile]) -> int:
        return sum(night.epochs for night in nights) // (self.batch * self.accumulation)

    def _losses(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self.network, NeuroNet):
            inputs = {**inputs, "noise": tf.transpose(inputs["noise"], (1, 0, 2))}
        found = self.network(inputs, mask_ratio=self.mask_ratio, training=True)
        weight = self.fold.config.training.contrastive_weight
        loss = found["reconstruction"] + weight * found["contrastive"]
        return {"loss": loss, "reconstruction": found["reconstruction"], "contrastive": found["contrastive"]}

    def _inputs(self, batch: dict[str, Any], noise: np.random.Generator) -> dict[str, Any]:
        """A modality alone or several, and the noise of the maskings, epoch by epoch."""
        frames, size = self.network.encoder.frames, self.batch * self.accumulation
        if isinstance(self.network, NeuroNet):
            (signals,) = batch.values()
            return {"signals": signals, "noise": noise.random((size, 2, frames), "float32")}
        return {"signals": batch, "noise": {name: noise.random((size, frames), "float32") for name in batch}}

    def _embed(self, signals: dict[str, Any]) -> Any:
        if isinstance(self.network, NeuroNet):
            (only,) = signals.values()
            return self.network.encoder(only)[:, 0]
        return self.network.encoder(signals)

    def train(self) -> None:
        """Run the rounds that are left, and save the encoder of the best pass."""
        if (self.folder / METADATA).is_file():
            before = read_metadata(self.folder)
            resumable.require_same_run(self.folder, {n: before.get(n) for n in self.run}, self.run)
            resumable.finish(self.folder)
            print(f"fold {self.fold.split.fold} {self.name} is finished: skipped.")
            return
        self._continue()
        steps = [self._updates(nights) for _, nights in self.rounds]
        done = len(self.history)
        with tqdm(
            total=sum(steps),
            initial=sum(steps[:done]),
            unit="step",
            desc=f"fold {self.fold.split.fold} {self.name}",
            mininterval=0.5,
            disable=not self.fold.bar,
        ) as bar:
            for number in range(done, len(self.rounds)):
                self.one_round(number, bar)
        self._finish()

    def one_round(self, number: int, bar: tqdm) -> None:
        """Round ``number``: train, validate at the end of a pass, keep."""
        config = self.fold.config
        of_pass, nights = self.rounds[number]
        seed = np.random.SeedSequence((*self.seed, number))
        reseed_dropout(self.network, seed, self.fold.replicas)
        noise, started = np.random.default_rng(seed.spawn(1)[0]), time.monotonic()
        stream = epochs(
            [night.path for night in nights],
            self.channels,
            self.batch * self.accumulation,
            (*self.seed, number),
            scale=not config.database.scaled,
        )
        figures = []
        with reading():
            for batch in stream:
                figures.append(self.learner.step(self._inputs(batch, noise)))
                bar.update()
        row = {"round": number + 1, "pass": of_pass + 1, "seconds": 0.0}
        if figures:
            row |= {name: float(np.mean([float(figure[name]) for figure in figures])) for name in figures[0]}
            if not np.isfinite(row["loss"]):
                raise InputError(
                    f"the loss of fold {self.fold.split.fold} {self.name} became {row['loss']} in round {number + 1}: "
                    "try a lower pretraining_rate with --set, and look at the nights' units."
                )
        if number + 1 == len(self.rounds) or self.rounds[number + 1][0] > of_pass:
            row["val_macro_f1"] = self.validate()
            if self.best is None or row["val_macro_f1"] > self.best["macro_f1"]:
                self.best = {"pass": of_pass + 1, "macro_f1": row["val_macro_f1"]}
                self.best_weights = self.network.encoder.get_weights()
        row["seconds"] = round(time.monotonic() - started, 1)
        self.history.append(row)
        if self.fold.replicas.chief:
            # Before the round is kept: a kill in between has it logged again, never forgotten.
            resumable.log(self.folder, self.history)
            self._keep()
        validated = f"  neighbours' macro-F1 {row['val_macro_f1']:.3f}" if "val_macro_f1" in row else ""
        loss = f"loss {row['loss']:.4g}" if figures else "too few epochs for an update"
        bar.write(
            f"fold {self.fold.split.fold} {self.name} round {number + 1}/{len(self.rounds)}: "
            f"{loss}{validated}  {row['seconds']:.0f} s"
        )

    def validate(self) -> float:
        """Macro-F1 of the validation subjects' stages, told by the nearest neighbours of their embeddings."""
        training = self.fold.config.training
        (known, stages), (asked, expected) = (self._embedded(nights) for nights in self._judged)
        components = min(training.knn_components, *known.shape)
        neighbours = KNeighborsClassifier(min(training.knn_neighbours, len(known)))
        judge = make_pipeline(PCA(components, random_state=0), neighbours).fit(known, stages)
        return float(f1_score(expected, judge.predict(asked), average="macro"))

    @cached_property
    def _judged(self) -> tuple[list[NightFile], list[NightFile]]:
        """The nights of labelled and of validation subjects on which the network is judged."""
        rng, count = np.random.default_rng(self.seed[:2]), self.fold.config.training.knn_nights
        parts = (self.fold.files(subjects) for subjects in (self.fold.labelled, self.fold.split.validation))
        labelled, validation = ([nights[i] for i in sorted(rng.permutation(len(nights))[:count])] for nights in parts)
        return labelled, validation

    def _embedded(self, nights: list[NightFile]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings and stages of the scored epochs of ``nights``."""
        config, found, stages = self.fold.config, [], []
        for file in nights:
            night = read_night(file.path, tuple(self.channels.values()))
            scored = night.stages != UNSCORED
            stages.append(night.stages[scored])
            found.append(embed_night(self.embed, night, self.channels, self.batch, not config.database.scaled)[scored])
        return np.concatenate(found), np.concatenate(stages)

    def _keep(self) -> None:
        def fill(folder: Path) -> None:
            np.savez(folder / "training.npz", *self.learner.state())
            np.savez(folder / "best.npz", *self.best_weights)
            write_json(folder / "state.json", {"run": self.run, "history": self.history, "best": self.best})

        resumable.keep(self.folder, len(self.history), fill)

    def _continue(self) -> None:
        kept = resumable.newest(self.folder)
        if kept is None:
            return
        with resumable.restoring(kept):
            state = read_json(kept / "state.json")
            resumable.require_same_run(self.folder, state["run"], self.run)
            self.history, self.best = state["history"], state["best"]
            if len(self.history) != int(kept.name):
                raise ValueError("its history is not that of its rounds")
            with np.load(kept / "training.npz", allow_pickle=False) as arrays:
                self.learner.restore([arrays[name] for name in arrays.files])
            with np.load(kept / "best.npz", allow_pickle=False) as arrays:
                self.best_weights = [arrays[name] for name in arrays.files]
        print(
            f"fold {self.fold.split.fold} {self.name} continues after round {len(self.history)} of {len(self.rounds)}."
        )

    def _finish(self) -> None:
        self.network.encoder.set_weights(self.best_weights)
        metadata = {"db": self.fold.config.database.db, "versions": versions(), "best": self.best}
        if self.fold.replicas.chief:
            save_model(self.folder, self.network.encoder, {**self.run, **metadata})
            resumable.finish(self.folder)
        self.fold.replicas.wait()


def settings_of(config: "Config", later: tuple[str, ...]) -> dict[str, Any]:
    """The values that a step's result depends on: all but those whose names begin as ``later`` says."""
    return {
        section: {name: value for name, value in values.items() if not name.startswith(later)}
        for section, values in asdict(config).items()
    }


def neuronet(config: "Config") -> NeuroNet:
    """A NeuroNet as the configuration has it."""
    model = config.model
    return NeuroNet(
        model.frame_seconds,
        model.frame_step_seconds,
        model.unimodal_features,
        model.unimodal_heads,
        model.unimodal_blocks,
        model.unimodal_decoder_features,
        model.unimodal_decoder_heads,
        model.unimodal_decoder_blocks,
        model.unimodal_projection,
        model.unimodal_temperature,
        dtype=config.training.precision,
    )


def unimodal(fold: Fold, modality: str) -> Pretraining:
    """The pretraining of one modality's NeuroNet."""
    training = fold.config.training
    keras.utils.set_random_seed(training.seed + fold.split.fold)
    return Pretraining(
        fold,
        f"unimodal/{modality}",
        (modality,),
        neuronet(fold.config),
        training.unimodal_passes,
        training.unimodal_batch,
        training.unimodal_mask_ratio,
    )


def multimodal(fold: Fold, modalities: tuple[str, ...]) -> Pretraining:
    """The pretraining of the fusion of ``modalities``, on the encoders of their finished pretraining.

    Raises:
        InputError: one of them has none.
    """
    model, training = fold.config.model, fold.config.training
    pretrained = {}
    for modality in modalities:
        folder = fold.folder / "unimodal" / modality
        if not (folder / METADATA).is_file():
            raise InputError(
                f"{folder} holds no pretrained {modality} encoder: run --step unimodal --modality {modality} first."
            )
        pretrained[modality] = load_model(folder, [NeuroNetEncoder], training.precision)
    keras.utils.set_random_seed(training.seed + fold.split.fold)
    arguments = {name: getattr(pretrained[modalities[0]], name) for name in ("window", "step", "dim", "heads", "depth")}
    network = SynthSleepNet(
        modalities,
        arguments,
        model.fusion_features,
        model.fusion_heads,
        model.fusion_blocks,
        model.fusion_decoder_features,
        model.fusion_decoder_heads,
        model.fusion_decoder_blocks,
        model.fusion_projection,
        model.fusion_temperature,
        dtype=training.precision,
    )
    for modality in modalities:
        adopt(network.encoder.backbones[modality], pretrained[modality])
    return Pretraining(
        fold,
        f"multimodal/{'-'.join(modalities)}",
        modalities,
        network,
        training.multimodal_passes,
        training.multimodal_batch,
        training.multimodal_mask_ratio,
    )
