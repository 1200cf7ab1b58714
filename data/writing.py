"""Write files and folders, local or remote, so that they appear whole or not at all, and lock folders meanwhile."""

import json
import os
import platform
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from data.store import is_remote, reaching, told_if_full
from data.terms import FAILURES, UNPRINTABLE, InputError, failure

if TYPE_CHECKING:
    import pandas as pd

UNFINISHED = ".unfinished-"
"""The names of temporary folders begin with this; a killed run may leave some."""

LOCK = ".lock"
"""The file in a folder that says which process works there."""


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A local path of the same name in a temporary folder, which is beside ``path`` if ``path`` is local."""
    beside = None if is_remote(path) else path.parent
    if beside:
        beside.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=beside, ignore_cleanup_errors=True) as folder,
        told_if_full(Path(folder) / path.name),
    ):
        yield Path(folder) / path.name


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A local path of the same name, to which ``path``'s new content is to be written.

    If the block ends without an error, the content is flushed to disk and replaces ``path`` in one step (or is sent to
    the remote store, where an object appears whole); otherwise it is removed.

    Raises:
        InputError: ``path`` is a folder or a device, or the remote store refuses it.
    """
    if not is_remote(path) and path.exists() and not path.is_file():
        raise InputError(f"{path} is a folder or a device, which cannot be replaced by a file: name another file.")
    with _aside(path) as aside:
        yield aside
        _put(aside, path)


@contextmanager
def written_together(folder: Path, last: str) -> Iterator[Path]:
    """A local folder for new files of ``folder``: if the block ends without an error, all move there; else none.

    The file ``last`` shows that the files are complete: an old one is removed first, and the new one is moved last.
    """
    with _aside(folder / last) as aside:
        yield aside.parent
        (folder / last).unlink(missing_ok=True)
        for file in sorted(aside.parent.iterdir(), key=lambda file: (file.name == last, file.name)):
            _put(file, folder / file.name)


def _put(file: Path, path: Path) -> None:
    """Put a local file in the place of ``path``."""
    if is_remote(path):
        with reaching(path):
            path.fs.put_file(str(file), path.path)
    else:
        _flush(file)
        file.replace(path)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a local ``folder``, and lock it against other processes that use this function, until the block ends.

    The lock ends with its process, even if that is killed. Remote folders are not locked.

    Raises:
        InputError: another process, of this machine or of one that shares the disk, works there.
    """
    if is_remote(folder):
        yield
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with suppress(OSError):
            raise InputError(
                f"{path.read_text(errors='replace') or 'another process'} is working in {folder}: wait until it ends, "
                "or name another folder."
            ) from None
        raise InputError(f"another process worked in {folder} just now: run the same command again.") from None
    try:
        path.write_text(f"process {os.getpid()} of {platform.node()}")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def working_in(folder: Path, processes: bool) -> Iterator[None]:
    """Lock a folder as :func:`alone_in` does, and remove half-written files from it: before the work those of a killed
    run, and after it those of killed workers.

    Args:
        folder: the folder, local or remote.
        processes: whether this machine's processes do the work. If the work fails, what they leave goes too; a
            cluster's workers finish what they began.

    Raises:
        InputError: as in :func:`alone_in`.
    """
    with alone_in(folder):
        if is_remote(folder):
            yield
            return
        remove_unfinished(folder, below=False)
        try:
            yield
        except BaseException:
            if processes:
                remove_unfinished(folder, below=False)
            raise
        remove_unfinished(folder, below=False)


def failed(error: Exception, path: Path, log: Path) -> str:
    """What ended the work on ``path``, in one sentence; the traceback of an unexpected error is written to ``log``."""
    sentence = failure(error, path)
    if not isinstance(error, FAILURES):
        with suppress(*FAILURES), written_aside(log) as aside:
            aside.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
            sentence += f" Please report it, and send {log}."
    return sentence


def as_table(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """A table of ``rows`` for CSV, in which texts from files can do no harm.

    Bytes of a file's name that are not valid text are escaped; characters that a terminal takes for commands become a
    space; and a text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    import pandas as pd

    def escaped(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = UNPRINTABLE.sub(" ", value).encode("utf-8", "backslashreplace").decode()
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text

    return pd.DataFrame([{name: escaped(value) for name, value in row.items()} for row in rows])


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON; NaN raises ValueError, because JSON has no NaN."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def new_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder ``path``, which must not exist, and let ``fill`` write into it; it appears whole or not at all.

    In a remote store, where there are no folders to rename, its files appear one by one in the order of their names.
    """
    with _aside(path) as aside:
        aside.mkdir()
        fill(aside)
        for file in sorted(aside.iterdir()):
            if is_remote(path):
                _put(file, path / file.name)
            else:
                _flush(file)
        if not is_remote(path):
            aside.rename(path)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def remove_unfinished(folder: Path, below: bool = True) -> None:
    """Remove what a killed run left half-written in ``folder``, and in the folders ``below`` it too."""
    # os.walk ignores what another process removes meanwhile.
    for root, folders, files in os.walk(folder):
        for name in (name for name in folders if name.startswith(UNFINISHED)):
            shutil.rmtree(Path(root) / name, ignore_errors=True)
        for name in (name for name in files if name.startswith(UNFINISHED)):
            (Path(root) / name).unlink(missing_ok=True)
        if not below:
            break


def require_writable(folder: Path) -> None:
    """Raise InputError if ``folder`` can be neither written nor made; the trial leaves nothing behind."""
    if is_remote(folder):
        if str(folder).startswith("http"):
            raise InputError(f"{folder}: a web server can only be read, not written: name a folder or a bucket.")
        probe = folder / f"{UNFINISHED}probe"
        with reaching(folder):
            try:
                probe.fs.pipe_file(probe.path, b"")
                probe.fs.rm_file(probe.path)
            except FileNotFoundError:
                raise InputError(f"{folder}: there is no such bucket: make it first.") from None
        return
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror
        raise InputError(f"the folder {folder} cannot be written ({reason}): name another folder.") from None
