"""The two forms of a night file: ``.npz``, and the folder of Parquet tables that SynthSleepNet's parser writes."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.store import fetch, is_remote, require_regular
from data.terms import EPOCH_SAMPLES, EVENTS, InputError
from data.writing import new_folder, written_aside

STAGE_COLUMN = "Sleep Stage"
"""Column of ``y.parquet``, which also has one per event; ``x.parquet`` has a column per channel, a row per sample."""

OF_THE_PUBLISHED_PARSER = b'{"settings": {"whole": true}}'
"""What is assumed about a Parquet night that says nothing about itself: the published parser keeps whole nights."""


def read_arrays(path: Path, keys: Sequence[str], channels: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Those of the arrays ``keys`` that a night has; other arrays are never opened.

    Of a Parquet night's ``x``, only ``channels`` are read if it has all of them.

    Raises:
        InputError: the night is missing, damaged, or holds pickled objects.
    """
    try:
        return _read_npz(path, keys) if path.suffix == ".npz" else _read_parquet(path, keys, channels)
    except (InputError, ImportError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist, or no longer exists: check its name.") from None
    # The parsers of NumPy, zipfile and Arrow raise almost any exception on a damaged file.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from None
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            reason = "holds pickled objects, which are never loaded"
            raise InputError(f"{path} {reason}: prepare this night again.") from None
        raise InputError(f"{path} is truncated or damaged: prepare this night again.") from None


def _opened(path: Path) -> Path | io.BytesIO:
    """What NumPy and Arrow can read; a remote file is fetched in one piece, because each part would take a request."""
    require_regular(path)
    if not is_remote(path):
        return path
    fetched = io.BytesIO()
    fetch(path, fetched)
    fetched.seek(0)
    return fetched


def _read_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    file = np.load(_opened(path), allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise InputError(f"{path} is a single array: a night file is an .npz file with the arrays x and y.")
    with file:
        for member in file.zip.infolist() if file.zip else ():
            _require_plausible(path, member.file_size, member.compress_size)
        return {key: file[key] for key in keys if key in file.files}


def _require_plausible(path: Path, size: int, stored: int) -> None:
    """Raise InputError if few ``stored`` bytes unpack to very many: no recorded signal can be compressed so much."""
    if size > 64 << 20 and size > 100 * stored:
        raise InputError(
            f"{path} would unpack from {stored / 1e6:.1f} to {size / 1e6:.0f} MB, as no real night does: prepare it "
            "again."
        )


def _read_parquet(path: Path, keys: Sequence[str], channels: Sequence[str]) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    def columns(file: pq.ParquetFile, names: Sequence[str]) -> list[np.ndarray]:
        table = file.read(columns=list(names))
        return [table.column(name).to_numpy() for name in names]

    labels = pq.ParquetFile(_opened(path / "y.parquet"))
    names = labels.schema_arrow.names
    if STAGE_COLUMN not in names:
        raise InputError(
            f"{path}/y.parquet has no column {STAGE_COLUMN!r}, only {', '.join(names)}: prepare this night again."
        )
    events = [name for name in EVENTS if name in names]
    arrays = {"y": columns(labels, [STAGE_COLUMN])[0], "event_names": np.array(events)}
    if "events" in keys and events:
        arrays["events"] = np.stack(columns(labels, events), axis=1)
    about = (labels.schema_arrow.metadata or {}).get(b"about", OF_THE_PUBLISHED_PARSER)
    arrays["about"] = np.array(about.decode())
    if "x" in keys or "ch_names" in keys:
        signals = pq.ParquetFile(_opened(path / "x.parquet"))
        present = signals.schema_arrow.names
        chosen = list(channels) if channels and set(channels) <= set(present) else present
        arrays["ch_names"] = np.array(chosen)
        if "x" in keys:
            samples = signals.metadata.num_rows
            _require_plausible(path, samples * len(chosen) * 4, (path / "x.parquet").stat().st_size)
            if samples % EPOCH_SAMPLES:
                raise InputError(
                    f"{path}/x.parquet has {samples} rows, not a multiple of the {EPOCH_SAMPLES} of an epoch: prepare "
                    "this night again."
                )
            arrays["x"] = np.stack([s.reshape(-1, EPOCH_SAMPLES) for s in columns(signals, chosen)], axis=1)
    return {key: value for key, value in arrays.items() if key in keys}


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Do what ``numpy.savez`` does, which leaves its file open if the disk is full, and prints an error later."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a night in the form that its path's suffix tells; it appears whole or not at all."""
    if path.suffix == ".npz":
        with written_aside(path) as aside:
            _write_npz(aside, arrays)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    x = arrays["x"].reshape(len(arrays["x"]), -1, EPOCH_SAMPLES)
    labels: dict[str, Any] = {str(name): arrays["events"][:, i] for i, name in enumerate(arrays.get("event_names", ()))}
    labels[STAGE_COLUMN] = arrays["y"]

    def fill(folder: Path) -> None:
        signals = pa.table({str(name): x[:, i].ravel() for i, name in enumerate(arrays["ch_names"])})
        pq.write_table(signals, folder / "x.parquet")
        about = {"about": str(arrays["about"])} if "about" in arrays else None
        # Written last: in a remote store, a night counts as whole once its labels are there.
        pq.write_table(pa.table(labels).replace_schema_metadata(about), folder / "y.parquet")

    new_folder(path, fill)


def read_about(path: Path) -> dict[str, Any]:
    """What preparation noted about a night, else nothing; InputError if the night is missing or damaged."""
    return about_of(read_arrays(path, ("about",)))


def about_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What preparation noted about the night whose ``arrays`` were read already, else nothing."""
    try:
        about = json.loads(str(arrays["about"])) if "about" in arrays else {}
    except (ValueError, RecursionError):
        about = {}
    return about if isinstance(about, dict) else {}
