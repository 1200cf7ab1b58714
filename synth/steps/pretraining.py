"""Pretraining of a fold without labels: a NeuroNet for each modality, then the fusion; a killed run continues.

Scoring is used only to choose the best network, on validation subjects: the figure is how well an epoch's nearest
neighbours among labelled training subjects tell its stage (Lee et al., arXiv:2502.17481, section 4). The same figure on
the test subjects, and a picture of their epochs, show how good the chosen network is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from data.nights.files import read_about
from data.nights.index import NightFile
from data.nights.night import read_night, read_scoring
from data.recipe import Recipe
from data.streams.epochs import epochs
from data.streams.windows import reading
from data.terms import UNSCORED, InputError, modality_of
from data.writing import written_aside
from evaluation.figures import map_of_epochs
from runs.identity import MULTIMODAL, UNIMODAL
from runs.networks import load_model
from runs.saved import METADATA, WEIGHTS, read_metadata
from synth.embeddings import describing
from synth.in_training import compiled, embed_epochs
from synth.initialisation import draw_as_pytorch
from synth.models.fusion import BACKBONE_LORA, SynthSleepNet
from synth.models.neuronet import SIZES, NeuroNet, NeuroNetEncoder, adopt
from synth.steps.neighbours import Embedded, as_many_of_each, on_a_map, told_by_neighbours
from synth.steps.step import Fold, Step

if TYPE_CHECKING:
    from config import SynthSleepNetConfig
    from runs.settings import Config


PICTURE = "embedding.png"
"""The file beside an encoder that shows how it tells the test nights' stages apart."""


class PretrainingStep(Step):
    """One network's pretraining, round by round.

    Each pass takes all nights of the training subjects in a new order, at most ``round_nights`` of them in a round.
    Everything random in a round (order, masks, dropout) is drawn from the step's seed and the round's number.

    Args:
        fold: the fold to train.
        kind: ``unimodal`` or ``multimodal``, with which the names of the step's hyper-parameters begin.
        channels: the channel of each stream that the network sees. A unimodal network sees streams of one modality, and
            the epochs of each of its channels are separate examples.
    """

    unit = "round"
    chosen_by = ("macro_f1",)
    rate = "pretraining_rate"

    def __init__(self, fold: Fold, kind: str, channels: dict[str, str]) -> None:
        self.alone = kind == "unimodal"
        self.streams = (*channels,)[: 1 if self.alone else None]
        name = f"{kind}/{'-'.join(self.streams)}"
        subjects = fold.split.train
        if not fold.config.training.pretraining_on_labelled:
            subjects = tuple(subject for subject in subjects if subject not in fold.labelled)
            if not subjects:
                raise InputError(
                    f"fold {fold.split.fold}: all {len(fold.labelled)} training subjects are labelled, so none is left "
                    "for pretraining: lower labelled_subjects with --set, or add subjects."
                )
        self.nights = fold.files(subjects)
        about: dict[str, Any] = {"nights": [night.path.name for night in self.nights], "channels": channels}
        if not self.alone:
            about["encoders"] = {
                modality: read_metadata(folder)["sha256"][WEIGHTS]
                for modality, folder in unimodal_encoders(fold, self.streams).items()
            }
        super().__init__(fold, fold.folder / name, name, name, about)
        self.decided_by = UNIMODAL if self.alone else MULTIMODAL
        of_ecg = self.alone and self.streams == ("ecg",)
        self.task = self.training.unimodal_ecg_chosen_by if of_ecg else "sleep_stage"
        self.passes, self.wanted, self.mask_ratio = (
            getattr(self.training, f"{kind}_{name}") for name in ("passes", "batch", "mask_ratio")
        )

    @cached_property
    def whole_recipe(self) -> Recipe:
        """The recipe of all channels, read from the first night, because all nights of a folder are prepared alike."""
        about = read_about(self.nights[0].path)
        # For NeuroNet alone, signals are not scaled, unless preparation has scaled them.
        scaled = self.config.fused or self.config.database.scaled
        rules: dict[str, Any] = {"scaled": scaled, "labelled_wake_minutes": self.training.labelled_wake_minutes}
        return Recipe.of_nights(self.config.database, self.record["channels"], about, **rules)

    @property
    def recipe(self) -> Recipe:
        whole = self.whole_recipe
        return replace(whole, channels={name: whole.channels[name] for name in self.streams})

    def examples(self, nights: Iterable[NightFile]) -> int:
        """The number of examples in ``nights``."""
        return sum(night.epochs for night in nights) * (len(self.record["channels"]) if self.alone else 1)

    def prepare(self) -> None:
        """Make network, rounds and learner.

        Raises:
            InputError: devices cannot share a batch, a round is too small, or no network can be chosen.
        """
        training, count = self.training, self.fold.replicas.count
        self._require_events()
        self.fold.draw_first_weights()
        self.network = neuronet(self.config) if self.alone else fusion(self.fold, self.streams)
        self.judged = self.network.encoder
        self.embed = compiled(describing(self.judged))
        self.rounds = list(self._rounds())
        if self.wanted % count:
            raise InputError(
                f"batches of {self.wanted} epochs cannot be divided evenly among {count} devices: choose a multiple of "
                f"{count} as batch size with --set."
            )
        smallest = min(self.examples(nights) for _, nights in self.rounds)
        # Contrast compares an epoch with others of its batch, so a batch needs at least two.
        if smallest < max(count, 2):
            raise InputError(
                f"{self.title}: a round of training has only {smallest} epochs, too few to learn from: "
                "raise round_nights with --set, or add nights."
            )
        # A batch must fit into every round; otherwise the round would have no update.
        self.batch = min(self.wanted, smallest // count * count)
        self.accumulation = min(training.accumulation, smallest // self.batch)
        passes = [number for number, _ in self.rounds]
        updates = np.bincount(passes, self.steps).astype(int).tolist()
        clipped = not self.alone or self.streams[0] not in training.unimodal_unclipped
        self.begin(self.batch * self.accumulation, training.pretraining_schedule, updates, self.accumulation, clipped)

    def _require_events(self) -> None:
        """Refuse nights that cannot tell which network is best, because they do not hold both classes of the task."""
        for part in ("labelled", "validation") if self.task != "sleep_stage" else ():
            subjects = self.fold.labelled if part == "labelled" else self.fold.split.validation
            nights = [read_scoring(file.path) for file in self.chosen_nights(subjects, self.training.knn_nights)]
            found = [night.labels(self.task, self.training.labelled_wake_minutes) for night in nights]
            known = [own for own in found if own is not None]
            if len(known) < len(found) or not {0, 1} <= set(np.concatenate(known)):
                raise InputError(
                    f"{self.title}: the best network cannot be chosen by {self.task}, because the {part} nights on "
                    "which "
                    f"it is judged were not scored for it, or hold it in none or in all of their epochs: choose it by "
                    "the stages with --set unimodal_ecg_chosen_by=sleep_stage, or raise knn_nights with --set."
                )

    def _rounds(self) -> Iterator[tuple[int, list[NightFile]]]:
        """The pass and the nights of each round; the rounds of a pass have about the same size."""
        count = -(-len(self.nights) // self.training.round_nights)
        for number in range(self.passes):
            order = np.random.default_rng((*self.seed, number)).permutation(len(self.nights))
            for part in np.array_split(order, count):
                yield number, [self.nights[i] for i in part]

    @property
    def steps(self) -> list[int]:
        update = self.batch * self.accumulation
        return [self.examples(nights) // update for _, nights in self.rounds]

    def about(self, number: int) -> dict[str, Any]:
        return {"round": number + 1, "pass": self.rounds[number][0] + 1}

    def train_unit(self, number: int, advance: Callable[[], Any]) -> dict[str, float]:
        noise = self.draws_of(number)
        paths, size = [night.path for night in self.rounds[number][1]], self.batch * self.accumulation
        figures = []
        with reading():
            for batch in epochs(paths, self.whole_recipe, size, (*self.seed, number), apart=self.alone):
                figures.append(self.learner.step(self._inputs(batch, noise)))
                advance()
        return {name: float(np.mean([float(figure[name]) for figure in figures])) for name in figures[0]}

    def _inputs(self, batch: dict[str, Any], noise: np.random.Generator) -> dict[str, Any]:
        """The epochs of one modality, or of each stream, and the noise of the masks, epoch by epoch."""
        frames, size = self.network.encoder.frames, self.batch * self.accumulation
        if self.alone:
            (signals,) = batch.values()
            return {"signals": signals, "noise": noise.random((size, 2, frames), "float32")}
        return {"signals": batch, "noise": {name: noise.random((size, frames), "float32") for name in batch}}

    def losses(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.alone:
            inputs = {**inputs, "noise": tf.transpose(inputs["noise"], (1, 0, 2))}
        found = self.network(inputs, mask_ratio=self.mask_ratio, training=True)
        weights = {name: getattr(self.training, f"{name}_weight") for name in ("reconstruction", "contrastive")}
        loss = sum(weight * found[name] for name, weight in weights.items())
        return {"loss": loss, "reconstruction": found["reconstruction"], "contrastive": found["contrastive"]}

    def judge(self, number: int) -> dict[str, float | None]:
        """At the end of a pass, the macro-F1 with which nearest neighbours tell the validation subjects' labels."""
        if number + 1 < len(self.rounds) and self.rounds[number + 1][0] == self.rounds[number][0]:
            return {}
        known, asked = (self._embedded(part, self.task) for part in (self.fold.labelled, self.fold.split.validation))
        if self.task != "sleep_stage":
            known = as_many_of_each(known)
        return {"macro_f1": told_by_neighbours(known, asked, self.training).macro_f1}

    def _embedded(self, subjects: tuple[int, ...], task: str = "sleep_stage") -> Embedded:
        """Embeddings and labels of the scored epochs of some nights of ``subjects``; InputError without such labels."""
        found, known = [], []
        for file in self.chosen_nights(subjects, self.training.knn_nights):
            night = read_night(file.path, self.recipe.names)
            labels = night.known_labels(task, self.recipe.labelled_wake_minutes)
            scored = labels != UNSCORED
            known.append(labels[scored])
            found.append(embed_epochs(self.embed, night.inputs(self.recipe))[scored])
        return np.concatenate(found), np.concatenate(known)

    def finish(self) -> None:
        """Test the best network on the test subjects, for the first and only time, and draw a map of their epochs.

        It takes as long as judging a pass, and some seconds for the picture.
        """
        # All processes that train together compute this, because shared variables must be read by all of them.
        known, asked = (self._embedded(subjects) for subjects in (self.fold.labelled, self.fold.split.test))
        scores = told_by_neighbours(known, asked, self.training)
        if self.chief:
            with written_aside(self.folder / PICTURE) as aside:
                map_of_epochs(*on_a_map(asked), f"{self.title}: test nights").savefig(aside, dpi=110)
            self.save(test=scores.to_json())
            print(f"{self.title}, test by nearest neighbours: {scores.line()}")


def neuronet(config: "Config") -> NeuroNet:
    """A NeuroNet of the configured size."""
    model = config.model
    encoder, decoder = _sizes(model, "unimodal"), _sizes(model, "unimodal_decoder")
    contrast = (model.unimodal_projection, model.unimodal_temperature)
    sizes = (model.frame_seconds, model.frame_step_seconds, *encoder, *decoder)
    network = NeuroNet(*sizes, *contrast, dtype=config.training.precision)
    draw_as_pytorch(network)
    return network


def unimodal_encoders(fold: Fold, streams: tuple[str, ...]) -> dict[str, Path]:
    """The folder of the pretrained encoder of each modality of ``streams``; InputError if one is not pretrained."""
    folders = {modality: fold.pretrained("unimodal", modality) for modality in map(modality_of, streams)}
    for modality, folder in folders.items():
        if not (folder / METADATA).is_file():
            raise InputError(
                f"{folder} holds no pretrained {modality} encoder: run --step unimodal --modality {modality} first."
            )
    return folders


def fusion(fold: Fold, streams: tuple[str, ...]) -> SynthSleepNet:
    """The fusion as configured, with a pretrained encoder for each stream; InputError if one is not pretrained."""
    model, precision = fold.config.model, fold.config.training.precision
    folders = unimodal_encoders(fold, streams)
    pretrained = {modality: load_model(folder, [NeuroNetEncoder], precision) for modality, folder in folders.items()}
    # Loading has also drawn weights, so the seed is set again.
    fold.draw_first_weights()
    first = next(iter(pretrained.values()))
    backbone = {name: getattr(first, name) for name in SIZES}
    rank = model.fusion_adaptation_rank
    backbone["lora"] = {name: {**lora, "rank": rank} for name, lora in BACKBONE_LORA.items() if rank}
    encoder, decoder = _sizes(model, "fusion"), _sizes(model, "fusion_decoder")
    contrast = (model.fusion_projection, model.fusion_temperature)
    cls_normalised = fold.config.training.multimodal_cls_normalised
    network = SynthSleepNet(streams, backbone, *encoder, *decoder, *contrast, cls_normalised, dtype=precision)
    draw_as_pytorch(network)
    for stream in streams:
        adopt(network.encoder.backbones[stream], pretrained[modality_of(stream)])
    return network


def _sizes(model: "SynthSleepNetConfig", part: str) -> tuple[int, int, int]:
    """The features, the heads and the number of blocks of a part of the networks."""
    return getattr(model, f"{part}_features"), getattr(model, f"{part}_heads"), getattr(model, f"{part}_blocks")
