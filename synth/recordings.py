"""Embeddings of any recording, for a user's own analyses: of one recording, or of many as tables.

A pretrained encoder describes each epoch by numbers that were learnt without labels. Its signals are prepared as in
training: the channels of its recipe are found as in staging, and filtered and scaled like the training nights.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.recipe import Recipe
from data.recordings import edf
from data.recordings.channels import open_any, open_signals
from data.store import location, read_json
from data.terms import EPOCH_SECONDS, InputError
from data.writing import write_json, written_aside, written_together
from runs.saved import CONFIG, METADATA, WEIGHTS, read_metadata, read_recipe, versions
from staging.batch import Outcome, Work, described
from staging.engine import kept_or_made
from staging.montage import Montage
from staging.recordings import EMBEDDINGS, Source
from staging.results import finished
from staging.stager import AnyRecording, Reader
from synth.inference import InferenceEncoder

if TYPE_CHECKING:
    import mne
    import pandas as pd

FORMAT = 1
"""The format's number in the ONNX files; a file of another format is written again."""

KINDS = {"SynthSleepNetEncoder": "SynthSleepNet", "NeuroNetEncoder": "NeuroNet"}
"""The name of the model to which each encoder belongs."""

WHERE = "name a fold of SynthSleepNet, such as output/shhs/0, or an encoder in it, such as output/shhs/0/unimodal/eeg"

ORIGIN = ("recording", "settings")
NEEDED = {*ORIGIN, "name", "model", "epochs", "features", "channels", "assumptions", "warnings"}
"""What the JSON of a finished recording must hold."""


@dataclass(frozen=True)
class EmbeddedRecording:
    """Embeddings of a recording's consecutive 30-s epochs, from its first sample on.

    Attributes:
        name: the recording's name.
        model: the encoder's name, which contains a hash of its weights.
        embeddings: float32 (epochs, features).
        missing: bool (epochs,), true where a channel was not recorded for half the epoch or more, or the EEG holds no
            signal: these embeddings tell nothing about sleep.
        start: clock time of the first epoch, if known.
        about: how the embeddings were made, as JSON values: channels, assumptions, warnings.
    """

    name: str
    model: str
    embeddings: np.ndarray
    missing: np.ndarray
    start: datetime | None
    about: dict[str, Any]

    def to_frame(self) -> "pd.DataFrame":
        """A row per epoch: ``epoch``, ``start_s``, ``model``, ``missing``, and the features ``e0``, ``e1``, …"""
        import pandas as pd

        features = pd.DataFrame(self.embeddings).add_prefix("e")
        return pd.concat([pd.DataFrame(self._columns), features], axis=1)

    def save(self, path: Path) -> None:
        """Write the table to ``path``, local or remote; it appears whole.

        The path's ending must be one of :data:`synth.terms.FORMATS`. An npz file holds the features as one array,
        ``embeddings`` (epochs, features), and the other columns of :meth:`to_frame` as an array each.
        """
        with written_aside(path) as aside:
            if path.suffix == ".npz":
                np.savez_compressed(aside, **self._columns, embeddings=self.embeddings)
            else:
                self.to_frame().to_parquet(aside, index=False)

    @property
    def _columns(self) -> dict[str, Any]:
        epochs = np.arange(len(self.embeddings))
        model = np.full(len(epochs), self.model)
        return {"epoch": epochs, "start_s": epochs * EPOCH_SECONDS, "model": model, "missing": self.missing}


class RecordingEmbedder(Reader):
    """A pretrained encoder that can embed any recording.

    Its ONNX file is written if it is absent or holds other weights.

    Args:
        folder: the folder of the encoder.
        threads: how many threads compute; 0 for one on each core of the processor.

    Attributes:
        name: the encoder's name: its kind, its modalities, the database of its training, and the first digits of the
            SHA-256 of its weights.
        models: the folder and the whole SHA-256, in the same form as in a stager.

    Raises:
        InputError: the folder holds no encoder, it is damaged, or it does not say how its signals are prepared.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder, metadata, config = folder, read_metadata(folder), read_json(folder / CONFIG)
        held = str(config.get("model")) if isinstance(config, dict) else "file"
        if held not in KINDS:
            raise InputError(f"{folder} holds a {held}, which is not a pretrained encoder: {WHERE}.")
        if "db" not in metadata:
            raise InputError(
                f"{folder / METADATA} does not say how to prepare signals for its encoder: pretrain an encoder with "
                "trainer.py."
            )
        self.recipe = read_recipe(folder, metadata)
        digest = metadata["sha256"][WEIGHTS]
        self.name = f"{KINDS[held]} {'-'.join(self.recipe.channels)} {metadata['db']} {digest[:12]}"
        self.models = [{"folder": str(folder), "sha256": digest}]
        about = {
            "format": FORMAT,
            "name": self.name,
            "recipe": self.recipe.to_json(),
            "models": [{name: metadata["sha256"][name] for name in (WEIGHTS, CONFIG)}],
        }
        opened = partial(InferenceEncoder, threads=threads)
        self.network = kept_or_made(folder, metadata, about, lambda: self._made(about), opened)

    @property
    def recipes(self) -> list[Recipe]:
        return [self.recipe]

    def _made(self, about: dict[str, Any]) -> bytes:
        from runs.networks import load_model
        from synth.models.fusion import SynthSleepNetEncoder
        from synth.models.neuronet import NeuroNetEncoder
        from synth.onnx import encoder_to_onnx

        network: SynthSleepNetEncoder | NeuroNetEncoder = load_model(
            self.folder, [SynthSleepNetEncoder, NeuroNetEncoder]
        )
        return encoder_to_onnx(network, list(self.recipe.channels), about)

    def embed(self, recording: AnyRecording, channels: Sequence[str] = ()) -> EmbeddedRecording:
        """Embed every epoch of an open recording.

        Args:
            recording: an open recording or night file.
            channels: channels or derivations to use, each as ``MODALITY=NAME``, or only ``NAME`` for an encoder of one
                modality. Without a name, the recipe's channel is used, or else the most similar one.

        Raises:
            InputError: a modality has no channel that can be used, or an embedding is not finite.
        """
        signals, unusable = self.signals(recording, self.named(channels), calibrate=False)
        absent = [name for name in self.channels if name not in signals]
        if absent:
            raise InputError(unusable[0]) if unusable else self.lacking(recording, absent)
        montage = Montage(recording.path, signals, self.recipe, None)
        embeddings = self.network.embed(montage.inputs(self.recipe))
        if not np.isfinite(embeddings).all():
            raise InputError(f"{recording.path}: the embeddings are not finite: check the units of the channels.")
        missing = np.any([montage.silent, *(signal.missing for signal in signals.values())], axis=0)
        about = {
            "channels": montage.channels(),
            "assumptions": montage.assumptions(),
            "warnings": montage.warnings(),
        }
        return EmbeddedRecording(recording.path.stem, self.name, embeddings, missing, recording.start, about)


def load_embedder(folder: str | Path, threads: int = 0) -> RecordingEmbedder:
    """Load a pretrained encoder of SynthSleepNet.

    Args:
        folder: a fold that holds one multimodal encoder, or the folder of any encoder, such as
            ``output/shhs/0/unimodal/eeg``.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: there is no encoder, there are several, or it is damaged.
    """
    folder = location(folder)
    if (folder / METADATA).is_file():
        return RecordingEmbedder(folder, threads)
    found = [path.parent for path in sorted(folder.glob(f"multimodal/*/{METADATA}"))]
    if len(found) > 1:
        raise InputError(
            f"{folder} holds encoders of {', '.join(p.name for p in found)}: name the folder of one, such as "
            f"{found[0]}."
        )
    if not found:
        raise InputError(f"{folder} holds no pretrained encoder: {WHERE}.")
    return RecordingEmbedder(found[0], threads)


def embed_recording(
    recording: "mne.io.BaseRaw | str | Path",
    model: RecordingEmbedder | str | Path,
    channels: str | Sequence[str] = (),
) -> EmbeddedRecording:
    """The embeddings of a recording's epochs.

    Args:
        recording: a recording that MNE has opened, a file in a format that MNE reads, or a night file.
        model: the folder of a fold or of an encoder, or an embedder from :func:`load_embedder`.
        channels: as in :meth:`RecordingEmbedder.embed`.

    Raises:
        InputError: the recording, a channel or the model cannot be used.

    Example:

    >>> embed_recording("night.edf", "output/shhs/0").to_frame().columns[:5].tolist()
    ['epoch', 'start_s', 'model', 'missing', 'e0']
    """
    embedder = model if isinstance(model, RecordingEmbedder) else load_embedder(model)
    wanted = [channels] if isinstance(channels, str) else channels
    with open_any(recording, wanted) as opened:
        return embedder.embed(opened, wanted)


@dataclass(frozen=True)
class Settings:
    """How recordings are embedded, the same for all.

    Attributes:
        channels: the channels to use; see :meth:`RecordingEmbedder.embed`.
        form: the form of the tables, one of :data:`synth.terms.FORMATS`.
        overwrite: whether finished recordings are embedded again.
    """

    channels: tuple[str, ...]
    form: str
    overwrite: bool


class Embedding(Work):
    """Embeds recordings with a :class:`RecordingEmbedder` and :class:`Settings`: a table and a JSON file for each.

    The JSON file is written last, so if it is there, the table is there too.
    """

    doing, table = "embedding", "embeddings.csv"

    def outcome(self, source: Source, embedder: RecordingEmbedder) -> Outcome:
        started, settings = time.perf_counter(), self.settings
        (model,) = embedder.models
        used = {"channels": list(settings.channels), "format": settings.form, "model": model["sha256"]}
        origin = {"recording": described(source.path), "settings": used}
        told = self.folder / f"{source.name}{EMBEDDINGS}.json"
        before = None if settings.overwrite else finished(told, origin, NEEDED)
        if before:
            return Outcome(source, "kept", before)
        with open_signals(source.path, settings.channels) as recording:
            night = embedder.embed(recording, settings.channels)
        epochs, features = night.embeddings.shape
        result = {
            "name": source.name,
            **origin,
            "model": {"name": night.model, **model},
            "start": edf.as_json(night.start),
            "epochs": epochs,
            "missing": int(night.missing.sum()),
            "features": features,
            "versions": versions(),
            **night.about,
            "took": round(time.perf_counter() - started, 3),
        }
        with written_together(self.folder, told.name) as aside:
            night.save(aside / f"{source.name}{EMBEDDINGS}.{settings.form}")
            write_json(aside / told.name, result)
        return Outcome(source, "embedded", result)

    @staticmethod
    def told(result: dict[str, Any]) -> str:
        missing = f", {result['missing']} of them without a signal" if result["missing"] else ""
        lines = [f"{result['name']}: {result['epochs']} epochs{missing}, {result['features']} features"]
        lines += [f"  WARNING: {text}" for text in result["warnings"]]
        return "\n".join([*lines, *(f"  assumed: {text}" for text in result["assumptions"])])

    @staticmethod
    def row(result: dict[str, Any]) -> dict[str, Any]:
        return {"missing": result.get("missing"), "model": result.get("model", {}).get("name")}
