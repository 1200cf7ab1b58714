"""Which recordings are meant by files, folders and patterns, local or remote, and what their results are called."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.recordings.channels import is_parquet_night
from data.store import files_below, is_remote, location, reaching
from data.terms import InputError

ENDINGS = (".edf", ".bdf", ".rec", ".vhdr", ".fif", ".fif.gz", ".set", ".gdf", ".cnt", ".npz")
"""Of recordings looked for in folders; a file that is named itself may have any that MNE knows."""

PARQUET = "x.parquet"
"""The file by which a folder is known as a night of Parquet tables."""

HYPNOGRAM, EMBEDDINGS = ".hypnogram", ".embeddings"
"""What results that could pass for recordings have before their ending."""


@dataclass(frozen=True)
class Source:
    """A recording to stage, what its results are called, and whether it was named itself, not found by a search."""

    path: Path
    name: str
    named: bool


def find_recordings(given: Sequence[str]) -> list[Source]:
    """The recordings that ``given`` stands for, each once, in their order.

    It holds files, folders (searched with what is below them) or patterns such as ``nights/*.edf``.

    Raises:
        InputError: one of them is nowhere, or a folder or pattern holds no recording.
    """
    found: dict[Path, bool] = {}
    for text in given:
        path = location(text)
        if any(letter in text for letter in "*?[") and (is_remote(path) or not path.exists()):
            paths = [p for match in _matches(path) for p in (_within(match) if match.is_dir() else [match])]
            paths = [p for p in paths if not _is_result(p.name)]
            if not paths:
                raise InputError(f"no recording is called {text}.")
        elif _is_folder(path):
            paths = _within(path)
            if not paths:
                raise InputError(f"{path} holds no recording: files ending in {', '.join(ENDINGS)} are looked for.")
        else:
            paths = [path]
        for each in paths:
            found[each] = found.get(each, False) or each == path
    names = _names(list(found))
    return [Source(path, names[path], named) for path, named in found.items()]


def _is_folder(path: Path) -> bool:
    if path.name.lower().endswith(ENDINGS) and is_remote(path):
        return False
    with reaching(path):
        if not path.exists():
            raise InputError(f"{path} does not exist: name a recording, a folder or a pattern with --recording.")
        return path.is_dir() and not is_parquet_night(path)


def _within(folder: Path) -> list[Path]:
    """The recordings in ``folder`` and below it; a night of Parquet tables is one."""
    if is_parquet_night(folder):
        return [folder]
    files = [path for path in files_below(folder) if path.name.lower().endswith(ENDINGS) or path.name == PARQUET]
    return [path.parent if path.name == PARQUET else path for path in files if not _is_result(path.name)]


def _is_result(name: str) -> bool:
    return name.rpartition(".")[0].endswith((HYPNOGRAM, EMBEDDINGS))


def _matches(pattern: Path) -> list[Path]:
    if not is_remote(pattern):
        return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    scheme = str(pattern).partition("://")[0]
    with reaching(pattern):
        names = sorted(map(str, pattern.fs.glob(pattern.path)))
    return [location(name if "://" in name else f"{scheme}://{name}") for name in names]


def _names(paths: list[Path]) -> dict[Path, str]:
    """What each is called: its name without ending; with its ending, then its folders, where others are called so."""
    names = {path: path.stem for path in paths}
    for parts in range(1, 100):
        counts = Counter(names.values())
        shared = [path for path in paths if counts[names[path]] > 1]
        if not shared:
            break
        for path in shared:
            names[path] = "_".join(path.parts[-parts:]).strip("/")
    return names
