"""Writing files so that they appear whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config import InputError

UNFINISHED = ".unfinished-"
"""How names begin under which content is written aside; a killed run may leave some."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path in the same folder, and of the same suffix, to write ``path``'s new content to.

    When the block ends well, the content is flushed to disk and takes ``path``'s place in one step; else it is removed.

    Raises:
        InputError: ``path`` is a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file that could be replaced: name another.")
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(
        prefix=f"{UNFINISHED}{path.name.removesuffix(suffix)}-", suffix=suffix, dir=path.parent
    )
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON; NaN is refused, since JSON has none."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is absent or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not valid JSON: it may be damaged; restore it or remove its folder.") from None


def new_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make folder ``path``, which must not exist, with what ``fill`` writes into it; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{path.name}-", dir=path.parent))
    try:
        fill(aside)
        for file in aside.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        aside.chmod(0o777 & ~_umask())
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left half-written below ``folder``."""
    for path in list(folder.rglob(f"{UNFINISHED}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Try whether ``folder`` can be written, or made, before hours of work end in a refusal; nothing stays behind.

    Raises:
        InputError: it cannot.
    """
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be written ({error.strerror}): name another for the results."
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
