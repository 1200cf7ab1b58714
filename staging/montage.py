"""A montage, the channels that are staged together, one per stream: its signals for a network, and their quality."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.databases import plain
from data.recipe import Level, Recipe
from data.recordings.channels import ChannelSignal
from data.recordings.modalities import told_by_name
from data.recordings.quality import Quality, assess, calibrated, warnings
from data.recordings.recording import MICROVOLTS
from data.terms import InputError, modality_of

LEAST_NEAR_SLEEP = 0.75
"""If at least this share of a recording is near sleep, its level is measured over the whole recording."""

LEAST_WORTH = 0.5
"""A channel that the user did not name is not used if its weight is below this share of the best channel's."""

Signals = dict[str, ChannelSignal]
"""The channels that are predicted together, by stream."""


class Montage:
    """The signals that are predicted together, and their quality.

    Attributes:
        silent: bool (epochs,), true where the EEG, or without EEG every channel, holds no signal.
        lost: bool (epochs,), true where it holds no signal that could be staged.

    Raises:
        InputError: the EEG holds no signal in any epoch.
    """

    def __init__(self, path: Path, signals: Signals, recipe: Recipe, level: Level | None) -> None:
        self.path, self.signals, self.recipe, self.level = path, signals, recipe, level
        self.quality: Quality | None = None
        self._made: dict[tuple[Any, ...], np.ndarray] = {}
        # Only EEG has a known size and is never still; breathing, for example, stops in every apnea.
        if "eeg" in signals:
            self.quality = self._assess(signals["eeg"])
            self.silent, self.lost = self.quality.silent, self.quality.lost
        else:
            self.silent = self.lost = np.all([signal.missing for signal in signals.values()], axis=0)

    @property
    def weight(self) -> np.ndarray:
        """float (epochs,): how much this montage counts when several are staged together."""
        return self.quality.weight if self.quality else (~self.lost).astype(float)

    def measure_again(self, near: np.ndarray) -> bool:
        """Measure the EEG's level only in the epochs ``near`` sleep, bool (epochs,), if many other epochs exist."""
        near = near & ~self.silent
        if not (self.level and self.quality) or not 0 < near.sum() < LEAST_NEAR_SLEEP * (~self.silent).sum():
            return False
        self.quality = self.quality.measured(self._applied(self.recipe, "eeg"), near)
        return True

    def _assess(self, eeg: ChannelSignal) -> Quality:
        try:
            quality = assess(eeg.signals, eeg.missing)
        except InputError as error:
            raise InputError(f"{self.path}: channel {eeg.name} cannot be staged; {error}") from None
        if self.level is None:
            return quality
        # The level is measured after filtering.
        return quality.measured(self._applied(self.recipe, "eeg"), ~quality.silent)

    def _applied(self, recipe: Recipe, modality: str) -> np.ndarray:
        made_as = (modality, recipe.channels[modality].band, recipe.scaled, recipe.nights_scaled)
        if made_as not in self._made:
            signal = self.signals[modality]
            self._made[made_as] = recipe.applied(modality, signal.signals, signal.prepared)
        return self._made[made_as]

    def inputs(self, recipe: Recipe) -> dict[str, np.ndarray]:
        """The signals (epochs, 3000) of each stream as the network takes them."""
        found = {modality: self._applied(recipe, modality) for modality in recipe.channels}
        if self.level and self.quality and "eeg" in found:
            found["eeg"] = calibrated(found["eeg"], self.quality, self.level)
        return found

    def channels(self) -> list[dict[str, Any]]:
        """The origin of each channel and what was done to it, as JSON values."""
        found = [{"modality": name, **signal.about} for name, signal in self.signals.items()]
        if self.quality:
            factor = self.level and self.level.amplitude / self.quality.amplitude
            found[0] |= {"amplitude": self.quality.amplitude, "factor": factor}
        return found

    def assumptions(self) -> list[str]:
        """What was done to each channel, one sentence for each."""
        return [self._assumption(modality, signal) for modality, signal in self.signals.items()]

    def _assumption(self, modality: str, signal: ChannelSignal) -> str:
        about, made = signal.about, " less ".join(signal.about["from"])
        channel = f"channel {signal.name}" + (f" ({made})" if made != signal.name else "")
        resampled = f"{about['rate_hz']:g} Hz to 100 Hz"
        if self.recipe.scaled:
            known = self.recipe.channels.get(modality)
            instead = f" in place of {known.name}" if known and plain(signal.name) != plain(known.name) else ""
            return f"{modality}: {channel}{instead}, {resampled}, scaled by its own quartiles"
        unit, header = about["unit"], about["header_unit"]
        changed = header and MICROVOLTS.get(header.lower()) != MICROVOLTS.get(unit.lower())
        converted = f"from {header} to {unit}" if changed else f"in {unit}" if header else "in an unknown unit"
        amplitude = self.quality.amplitude if self.quality else np.nan
        measured = f"level of {amplitude:.3g}" + (f" {unit}" if header else "")
        level = f"not calibrated, with a {measured}"
        if self.level:
            factor = self.level.amplitude / amplitude
            level = f"times {factor:.3g}, to change its {measured} to the {self.level.amplitude:.3g} of training"
        return f"{channel}, {resampled}, {converted}, {level}"

    def warnings(self) -> list[str]:
        """What a user should know about the signals, one sentence for each problem."""
        found = [
            f"{signal.name}: {signal.about['missing_seconds']:g} s are missing in the recording."
            for signal in self.signals.values()
            if signal.about["missing_seconds"]
        ]
        for stream, signal in self.signals.items():
            other = told_by_name(signal.about["from"][0], stream)
            if other:
                known = f"{signal.name} is {other} by its name, but is used as {modality_of(stream)}"
                found.append(f"{known}: if that is wrong, name another channel with --channel.")
        if self.quality:
            eeg, expected = self.signals["eeg"], None if self.level else self.recipe.level
            found += [f"{eeg.name}: {warning}" for warning in warnings(self.quality, eeg.about["unit"], expected)]
        return found


def assessed(
    path: Path,
    found: Sequence[Signals],
    needed: Collection[str],
    recipe: Recipe,
    level: Level | None,
    unusable: list[str],
) -> list[Montage]:
    """The montages that can be staged; why others cannot is added to ``unusable``; InputError if none can."""
    montages = []
    for each in found:
        signals = {name: signal for name, signal in each.items() if name in needed}
        try:
            montages.append(Montage(path, signals, recipe, level))
        except InputError as error:
            unusable.append(str(error))
    if not montages:
        raise InputError(unusable[0])
    return montages


def without_bad(montages: Sequence[Montage], told: list[str]) -> list[Montage]:
    """The montages whose signal is not much worse than that of the best one; ``told`` gets a sentence for each other.

    Networks would be wasted on the worse channels, so the better channels get them.
    """
    worth = [float(montage.weight.mean()) for montage in montages]
    good = [montage for montage, own in zip(montages, worth, strict=True) if own >= LEAST_WORTH * max(worth)]
    for montage in montages:
        if montage not in good:
            names = ", ".join(signal.name for signal in montage.signals.values())
            told.append(f"{names} is not used, because its signal is much worse than that of the other channels.")
    return good


def weights_of(montages: Sequence[Montage]) -> np.ndarray:
    """Each montage's weight in every epoch, float (montages, epochs); 0 for all where none holds a signal."""
    weights, heard = np.stack([m.weight for m in montages]), ~np.stack([m.silent for m in montages])
    weights = np.where(weights.any(axis=0), weights, heard)
    return weights / np.maximum(weights.sum(axis=0), 1e-9)
