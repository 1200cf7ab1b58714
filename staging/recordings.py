"""Find the recordings that files, folders and patterns mean, local or remote, and name their results."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.recordings.channels import is_parquet_night
from data.store import files_below, is_remote, location, reaching
from data.terms import UNPRINTABLE, InputError

ENDINGS = (".edf", ".bdf", ".rec", ".vhdr", ".fif", ".fif.gz", ".set", ".gdf", ".cnt", ".npz")
"""Endings of the recordings that are looked for in folders; a file that the user names may have any that MNE knows."""

PARQUET = "x.parquet"
"""The file that shows that a folder is a night of Parquet tables."""

HYPNOGRAM, EMBEDDINGS = ".hypnogram", ".embeddings"
"""The names of results that could be taken for recordings have this before their ending."""


LONGEST_NAME = 200
"""The most bytes of the name of a recording's results, to which endings are added; file systems allow 255."""


@dataclass(frozen=True)
class Source:
    """A recording to stage, the name of its results, and whether the user named this file, or a search found it.

    ``problem`` says in a sentence why it cannot be staged, if that is known.
    """

    path: Path
    name: str
    named: bool
    problem: str = ""


def find_recordings(given: Sequence[str]) -> list[Source]:
    """The recordings that ``given`` means, each once, in their order.

    ``given`` holds files, folders (searched with all folders below) or patterns such as ``nights/*.edf``. If one of
    them does not exist, or holds no recording, it becomes a source with a problem.

    Raises:
        InputError: all of them have such a problem, or one is not a valid address.
    """
    found: dict[Path, bool] = {}
    problems: dict[Path, str] = {}
    for text in given:
        path = location(text)
        try:
            paths = _meant(text, path)
        except InputError as error:
            paths, problems[path] = [path], str(error)
        for each in paths:
            found[each] = found.get(each, False) or each == path
    if len(problems) == len(found):
        raise InputError(next(iter(problems.values())))
    names = _names(list(found))
    for path, name in names.items():
        if len(os.fsencode(name)) > LONGEST_NAME:
            problems.setdefault(path, f"{path}: its name is longer than {LONGEST_NAME} bytes: give it a shorter one.")
            names[path] = f"{name[: LONGEST_NAME // 8]}..."
    return [Source(path, names[path], named, problems.get(path, "")) for path, named in found.items()]


def _meant(text: str, path: Path) -> list[Path]:
    """The recordings that ``text``, whose path is ``path``, means; InputError if there is none."""
    if any(letter in text for letter in "*?[") and (is_remote(path) or not path.exists()):
        paths = [p for match in _matches(path) for p in (_within(match) if match.is_dir() else [match])]
        paths = [p for p in paths if not _is_result(p.name)]
        if not paths:
            raise InputError(f"no recording fits the pattern {text}: check it.")
        return paths
    if not _is_folder(path):
        return [path]
    paths = _within(path)
    if not paths:
        raise InputError(
            f"{path} holds no recording, that is no file ending in {', '.join(ENDINGS)}: name another folder."
        )
    return paths


def _is_folder(path: Path) -> bool:
    if path.name.lower().endswith(ENDINGS) and is_remote(path):
        return False
    try:
        with reaching(path):
            path.stat()
            return path.is_dir() and not is_parquet_night(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: name a recording, a folder or a pattern with --recording.") from None


def _within(folder: Path) -> list[Path]:
    """The recordings in ``folder`` and below it; a night of Parquet tables counts as one recording."""
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
    """The name of each path's results: its name without ending, or, if others share it, with ending and folders.

    Characters that a terminal would take for commands become underscores.
    """
    names = {path: UNPRINTABLE.sub("_", path.stem) for path in paths}
    for parts in range(1, 100):
        counts = Counter(names.values())
        shared = [path for path in paths if counts[names[path]] > 1]
        if not shared:
            break
        for path in shared:
            names[path] = UNPRINTABLE.sub("_", "_".join(path.parts[-parts:]).strip("/"))
    return names
