"""The recipe of a network: everything between a recording and the numbers that the network sees.

Preparation, training, evaluation and staging all follow it, and every model keeps it in its ``metadata.json``. The
order is fixed: a channel is read in µV or as stored, resampled to 100 Hz and band-passed; then it may be scaled by its
quartiles or calibrated to a level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data.databases import DATABASES, ChannelSpec, Database, database
from data.terms import EPOCH_SAMPLES, MODALITIES, SAMPLING_RATE, WAKE_MINUTES, InputError, modality_of

SCALED_UNIT = "interquartile ranges"
"""Unit of channels that were scaled by their quartiles when the night was prepared."""


@dataclass(frozen=True)
class Level:
    """How large a signal is: the median absolute deviation of its epochs and its mean, in the signal's unit."""

    amplitude: float
    offset: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What a network takes as its input.

    Attributes:
        channels: the training nights' channel of each stream. A stream is named by its modality, one of
            ``data.terms.MODALITIES``; the stream of the second EEG channel is ``eeg2``.
        as_stored: whether voltages stay in the recording's own unit; otherwise they are in µV.
        scaled: whether each channel is scaled by its quartiles, see :func:`scale`.
        nights_scaled: whether night files that do not say their channels' unit hold scaled channels.
        level: the level of the training nights, to which a recording is calibrated; None if unknown, or if channels
            are scaled.
        nights_calibrated: whether night files are calibrated too, as they are when a network is adapted to them.
        labelled_wake_minutes: how many minutes of wake before and after sleep are learnt and tested in nights that
            were prepared whole. It does not change the signals, so recipes that differ only in it are equal.
    """

    channels: dict[str, ChannelSpec]
    as_stored: bool = False
    scaled: bool = False
    nights_scaled: bool = False
    level: Level | None = None
    nights_calibrated: bool = False
    labelled_wake_minutes: float = field(default=WAKE_MINUTES, compare=False)

    @classmethod
    def of_nights(
        cls,
        db: Database,
        channels: Mapping[str, str],
        about: Mapping[str, Any],
        scaled: bool = False,
        labelled_wake_minutes: float = WAKE_MINUTES,
    ) -> "Recipe":
        """The recipe of a network that is trained on the ``channels`` of ``db``'s night files.

        ``about`` is what preparation noted about one of them; what it does not say is taken from the database.
        """
        return cls(
            {modality: _spec(db, name, about) for modality, name in channels.items()},
            as_stored=bool(settings_in(about).get("as_stored", db.as_stored)),
            scaled=scaled,
            nights_scaled=db.scaled,
            labelled_wake_minutes=labelled_wake_minutes,
        )

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> "Recipe":
        """The recipe of a saved model.

        Models that were saved before version 2 hold no recipe. Their channels are named by ``channel`` or ``channels``
        in the metadata and specified by their database, and they are scaled in the second case. Their level is
        ``amplitude`` and ``offset``.

        Raises:
            InputError: the metadata do not describe a valid recipe.
        """
        if "recipe" in metadata:
            return cls.from_json(metadata["recipe"])
        db = database(str(metadata.get("db")))
        if "channels" in metadata:
            channels = metadata["channels"]
            named = isinstance(channels, dict) and all(isinstance(name, str) for name in channels.values())
            if not named or not channels or not set(map(modality_of, channels)) <= set(MODALITIES):
                raise InputError("its metadata do not name a channel for each modality: train it again.")
            return cls.of_nights(db, channels, {}, scaled=True)
        found = cls.of_nights(db, {"eeg": str(metadata.get("channel") or db.channel)}, {})
        return found.calibrated_to(_level(metadata.get("amplitude"), metadata.get("offset", 0.0)))

    @property
    def names(self) -> tuple[str, ...]:
        """The night files' channels, in the order of the streams."""
        return tuple(channel.name for channel in self.channels.values())

    def calibrated_to(self, level: Level | None) -> "Recipe":
        """The same recipe with that level."""
        return replace(self, level=level)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values; :meth:`from_json` reads them."""
        # Written only if it is true: so the files are the same as those of earlier versions, which do not have it.
        adapted = {"nights_calibrated": True} if self.nights_calibrated else {}
        return {
            "channels": {
                modality: {"name": c.name, "spellings": list(c.spellings), "band_hz": list(c.band) if c.band else None}
                for modality, c in self.channels.items()
            },
            "unit": "as stored" if self.as_stored else "µV",
            "sampling_rate_hz": SAMPLING_RATE,
            "scaling": "quartiles" if self.scaled else None,
            "nights_scaled": self.nights_scaled,
            "level": self.level and asdict(self.level),
            **adapted,
            "labelled_wake_minutes": self.labelled_wake_minutes,
        }

    @classmethod
    def from_json(cls, values: Any) -> "Recipe":
        """The recipe that :meth:`to_json` wrote; InputError if it is not one, or has another sampling rate."""
        try:
            channels = {
                modality: ChannelSpec(str(channel["name"]), tuple(map(str, channel["spellings"])), _band(channel))
                for modality, channel in values["channels"].items()
            }
            known = bool(channels) and set(map(modality_of, channels)) <= set(MODALITIES)
            if not known or values["sampling_rate_hz"] != SAMPLING_RATE:
                raise ValueError
            return cls(
                channels,
                as_stored=values["unit"] == "as stored",
                scaled=values["scaling"] == "quartiles",
                nights_scaled=values["nights_scaled"],
                level=values["level"] and _level(values["level"]["amplitude"], values["level"]["offset"]),
                nights_calibrated=bool(values.get("nights_calibrated", False)),
                labelled_wake_minutes=float(values.get("labelled_wake_minutes", WAKE_MINUTES)),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            reason = "the model is of a newer version, or its metadata.json is damaged"
            raise InputError(
                f"its recipe cannot be read, because {reason}: update the toolkit, or restore it."
            ) from None

    def applied(self, modality: str, signals: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
        """A channel as the network takes it, before calibration to a level: float32 (epochs, 3000).

        Args:
            modality: the name of the channel's stream.
            signals: float32 (epochs, 3000) at 100 Hz, all epochs of a recording or of a night file.
            about: what is known about them: ``prepared``, whether they come from a night file; ``filtered``, whether
                preparation has band-passed them; ``unit``; ``quartiles`` of the whole recording of a night file.
        """
        band, unit = self.channels[modality].band, about.get("unit")
        if band and not about.get("filtered"):
            signals = band_pass(signals.reshape(-1).astype(np.float64), band).reshape(signals.shape)
        is_scaled = about.get("prepared") and (unit == SCALED_UNIT if unit else self.nights_scaled)
        if self.scaled and not is_scaled:
            signals = scale(signals, about.get("quartiles"))
        return signals.astype(np.float32, copy=False)


def _spec(db: Database, name: str, about: Mapping[str, Any]) -> ChannelSpec:
    """How the night files' channel ``name`` was made: as its night says, else as the database specifies it."""
    try:
        found = listed_channel(about, name)
        if "band_hz" in found:
            return ChannelSpec(name, tuple(map(str, found["spellings"])), _band(found))
        # Nights that version 1 prepared have the band in their settings, and spellings in the custom specification.
        settings = settings_in(about)
        old = listed_channel(settings, name)
        known = next((channel for channel in db.channels if channel.name == name), None)
        if known or not old:
            return known or ChannelSpec(name)
        written = (settings.get("spec") or {}).get("channels", {}).get(name, [])
        spellings = written.get("spellings", []) if isinstance(written, dict) else written
        spellings = [spellings] if isinstance(spellings, str) else map(str, spellings)
        return ChannelSpec(name, tuple(spellings), _band(old))
    except (KeyError, TypeError, ValueError, AttributeError):
        what = f"a night file describes its channel {name} in an unknown form"
        raise InputError(f"{what}: prepare the nights again.") from None


def listed_channel(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the list ``channels`` in ``about`` says about the channel ``name``; empty if it does not name it."""
    return next((channel for channel in about.get("channels", ()) if channel.get("name") == name), {})


def settings_in(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of preparation in ``about``; empty if there are none."""
    settings = about.get("settings")
    return settings if isinstance(settings, dict) else {}


BAND_LIMITS = (0.01, 49)
"""Lowest and highest frequency in Hz of a band-pass at 100 Hz."""


def _band(channel: Mapping[str, Any]) -> tuple[float, float] | None:
    """The band of a channel that a file describes; TypeError or ValueError if it is not a valid band."""
    if channel["band_hz"] is None:
        return None
    low, high = map(float, channel["band_hz"])
    if not BAND_LIMITS[0] <= low < high <= BAND_LIMITS[1]:
        raise ValueError(f"{low} to {high} Hz is no band")
    return low, high


def _level(amplitude: Any, offset: Any) -> Level | None:
    """The level of two values from a file; None if they are not numbers, InputError if no signal can have it."""
    if not all(type(value) in (int, float) for value in (amplitude, offset)):
        return None
    if not (1e-9 <= amplitude <= 1e9 and abs(offset) <= 1e9):
        raise InputError(f"no signal has its level, amplitude {amplitude:.3g} and offset {offset:.3g}: train it again.")
    return Level(float(amplitude), float(offset))


_LEVELS = {"sleepedf": Level(12.5), "sleepedfx": Level(12.5), "isruc": Level(12.5), "ucddb": Level(0.12, 0.55)}
"""Levels for the published checkpoints. That for ISRUC is assumed, because its nights were not available; on ucddb018
its checkpoint works almost equally well from 4 to 20 µV. UCDDB's level is in the recordings' own unit, with their
offset, and was measured on nine nights."""

PUBLISHED = {
    db: Recipe.of_nights(DATABASES[db], {"eeg": DATABASES[db].channel}, {}).calibrated_to(level)
    for db, level in _LEVELS.items()
}
"""The recipes of the published RecSleepNet checkpoints, by database; the checkpoints themselves hold none."""


def resample(signal: np.ndarray, rate: float) -> np.ndarray:
    """Resample ``signal`` (samples,) from ``rate`` Hz to 100 Hz; sample k is at k / 100 s, however long the night is.

    The result is that of ``scipy.signal.resample_poly`` with ``padtype="edge"``, except for rounding; loading SciPy's
    signal package takes longer than resampling a night. A low-pass (windowed sinc) is evaluated at the positions of the
    new samples between the old ones; these positions repeat after ``up`` new and ``down`` old samples.
    """
    if rate == SAMPLING_RATE:
        return signal
    up, down = Fraction(SAMPLING_RATE / rate).limit_denominator(100_000).as_integer_ratio()
    half = 10 * max(up, down)
    low_pass = np.sinc(np.arange(-half, half + 1) / max(up, down)) * np.kaiser(2 * half + 1, 5.0)
    low_pass *= up / low_pass.sum()
    reach = half // up + 1
    padded = np.pad(signal, reach, mode="edge")
    resampled = np.empty(-(-len(signal) * up // down))
    for phase in range(min(up, len(resampled))):
        # Counted in steps, ``up`` of which are one old sample, the low-pass ends ``end`` steps into sample ``last``.
        last, end = divmod(phase * down + half, up)
        taps = low_pass[end::up][::-1]
        windows = sliding_window_view(padded, len(taps))[reach + last + 1 - len(taps) :: down]
        resampled[phase::up] = windows[: len(resampled[phase::up])] @ taps
    return resampled


def in_epochs(signal: np.ndarray, epochs: int, first: int = 0) -> np.ndarray:
    """``signal`` (samples,) from sample ``first`` on as (epochs, 3000); missing samples get its last value."""
    cut = signal[first : first + epochs * EPOCH_SAMPLES]
    return np.pad(cut, (0, epochs * EPOCH_SAMPLES - len(cut)), mode="edge").reshape(epochs, EPOCH_SAMPLES)


def band_pass(signal: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """``signal`` (samples,) at 100 Hz, float64, through a zero-phase FIR band-pass between two frequencies in Hz."""
    from mne.filter import filter_data

    return filter_data(signal, SAMPLING_RATE, *band, copy=False, verbose="error")


def quartiles(signal: np.ndarray) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile of all samples, in the signal's unit."""
    low, median, high = np.percentile(signal, (25, 50, 75))
    return float(low), float(median), float(high)


def scale(signal: np.ndarray, known: Sequence[float] | None = None) -> np.ndarray:
    """``signal``, of any shape, minus its median, divided by its interquartile range; a range of 0 counts as 1.

    If ``known``, the quartiles of a longer signal, of which this one is a part, are used instead.
    """
    low, median, high = known or quartiles(signal)
    return (signal - median) / ((high - low) or 1.0)
