"""The stages of an EDF, by a peer or by ``recsleep.stage``, as a process of its own.

A peer runs it in its own environment: ``python stage_with.py yasa RECORDING OUT EOG EEG [REFERENCE]``; gssc likewise.
EOG is "" for none. We: ``python -m benchmarks.peers.stage_with recsleep RECORDING OUT MODELS CHANNEL``.
OUT gets a stage on each line.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mne


def read(recording: str, eeg: Sequence[str], eog: str) -> "tuple[mne.io.BaseRaw, str]":
    """The recording's wanted channels and no others, and the name of the EEG."""
    import mne

    raw = mne.io.read_raw_edf(recording, include=[*eeg, eog] if eog else list(eeg), preload=True, verbose="error")
    name = "-".join(eeg)
    if len(eeg) > 1:
        raw = mne.set_bipolar_reference(raw, *eeg, ch_name=name, verbose="error")
    return raw, name


def by_yasa(recording: str, eog: str, *eeg: str) -> Iterable[str]:
    import yasa

    raw, name = read(recording, eeg, eog)
    return yasa.SleepStaging(raw, eeg_name=name, eog_name=eog or None).predict().hypno


def by_gssc(recording: str, eog: str, *eeg: str) -> Iterable[str]:
    # Its weights are pickled networks, which PyTorch loads no more unless it is told so.
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    import mne
    import numpy as np
    from gssc.infer import EEGInfer

    raw, name = read(recording, eeg, eog)
    # It wants a sample after the last epoch's end: one second more, which is no epoch, saves that epoch.
    rate = raw.info["sfreq"]
    samples = round((raw.n_times / rate + 1e-6) // 30 * 30 * rate)
    signals = np.pad(raw.get_data()[:, :samples], ((0, 0), (0, round(rate))), "edge")
    padded = mne.io.RawArray(signals, raw.info, verbose="error")
    stages, _ = EEGInfer(use_cuda=False).mne_infer(padded, eeg=[name], eog=[eog] if eog else [])
    return [("W", "N1", "N2", "N3", "REM")[stage] for stage in stages]


def by_recsleep(recording: str, models: str, channel: str) -> Iterable[str]:
    import recsleep

    return recsleep.stage(recording, models, channel).to_frame()["stage"]


if __name__ == "__main__":
    tool, recording, out, *rest = sys.argv[1:]
    tools: dict[str, Callable[..., Iterable[str]]] = {"yasa": by_yasa, "gssc": by_gssc, "recsleep": by_recsleep}
    Path(out).write_text("".join(f"{stage}\n" for stage in tools[tool](recording, *rest)))
