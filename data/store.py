"""Read files, local or remote.

A path is a ``pathlib.Path``, or a ``upath.UPath`` (the same methods, on fsspec) for ``s3://``, ``gs://`` and ``http://``.
"""

import errno
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard, cast

from data.terms import InputError, in_one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    class RemotePath(Path):
        """What a ``upath.UPath`` has besides the methods of a ``Path``."""

        fs: AbstractFileSystem
        path: str


FULL = (errno.ENOSPC, errno.EDQUOT)
"""The error numbers of a full disk."""

TIMEOUT = 30
"""How many seconds to wait for a remote store's answer."""
PAUSES = (1, 3)
"""Seconds before the second and the third try to fetch a file."""

REMOTE = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
"""The schemes of remote stores, and the package that each needs."""


def location(name: str | Path) -> Path:
    """The path, local or remote such as ``s3://bucket/isruc``, of ``name``; InputError if its scheme cannot be used."""
    scheme, separator, rest = str(name).partition("://")
    if not separator:
        return Path(name)
    if scheme not in REMOTE:
        raise InputError(f"{name}: {scheme}:// is not a known kind of remote store: use one of {', '.join(REMOTE)}.")
    if not rest.strip("/"):
        raise InputError(f"{name} names no {'server' if scheme.startswith('http') else 'bucket'}: add its name.")
    from fsspec import get_filesystem_class
    from upath import UPath

    try:
        get_filesystem_class(scheme)
    except ImportError:
        package = REMOTE[scheme]
        command = f"pip install -r requirements.txt {package}"
        raise InputError(f"{name}: {scheme}:// needs the package {package}: install it with {command}.") from None
    options: dict[str, Any] = {}
    if scheme == "s3":
        options = {"config_kwargs": {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT}}
    elif scheme.startswith("http"):
        from aiohttp import ClientTimeout

        options = {"client_kwargs": {"timeout": ClientTimeout(sock_connect=TIMEOUT, sock_read=TIMEOUT)}}
    try:
        # Listings are never cached: other machines write to the same store.
        path = UPath(f"{scheme}://{rest.rstrip('/')}", use_listings_cache=False, **options)
        # Only this parses the address.
        str(path)
    except ValueError as error:
        raise InputError(f"{name} is not a valid address ({in_one_line(error)}): correct it.") from None
    return cast(Path, path)


def anywhere(path: Path) -> Path:
    """``path`` in a form that a process with another working folder finds too."""
    return path if is_remote(path) else path.absolute()


def is_remote(path: Path) -> TypeGuard["RemotePath"]:
    """Whether ``path`` lies in a remote store."""
    return "://" in str(path)


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn a remote store's error (no network, no key, no bucket) into an InputError; local errors pass through."""
    try:
        yield
    except (InputError, NotADirectoryError):
        raise
    # Each store's library has its own family of exceptions.
    except Exception as error:
        # fsspec reports every refusal of a web server as FileNotFoundError; the server's own answer is its cause.
        refused = error.__cause__ if str(path).startswith("http") else None
        cause = refused if isinstance(error, FileNotFoundError) else error
        if not is_remote(path) or cause is None or getattr(cause, "status", None) in (404, 410):
            raise
        reason = in_one_line(cause)
        raise InputError(f"{path} cannot be reached ({reason}): check the address and your credentials.") from None


def fetch(path: "RemotePath", target: BinaryIO, most: int | None = None) -> None:
    """Write a remote file, or its first ``most`` bytes and perhaps a few more, to ``target``.

    If the network or the server fails, three tries are made; each continues where the last ended if the server can.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the store refuses it.
    """
    with reaching(path):
        for pause in (*PAUSES, None):
            try:
                with path.open("rb") as source:
                    try:
                        source.seek(target.tell())
                    except ValueError:
                        target.seek(0)
                        target.truncate()
                    while (most is None or target.tell() < most) and (block := source.read(1 << 22)):
                        target.write(block)
                return
            except Exception as error:
                final = isinstance(error, FileNotFoundError) or 400 <= getattr(error, "status", 500) < 500
                if pause is None or final or (isinstance(error, OSError) and error.errno in FULL):
                    raise
            time.sleep(pause)


def files_below(folder: Path) -> list[Path]:
    """All files in ``folder`` and below it except hidden ones, sorted; InputError if there is no such folder."""
    if is_remote(folder):
        root = folder.path.rstrip("/") + "/"
        try:
            with reaching(folder):
                names = [name.removeprefix(root) for name in folder.fs.find(folder.path) if name.startswith(root)]
        except FileNotFoundError:
            names = []
        if not names:
            raise InputError(f"{folder} does not exist or is empty: check its name.")
    else:
        if not folder.is_dir():
            raise InputError(f"the folder {folder} does not exist: check its name.")
        names, seen = [], set()
        for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
            # A hidden folder may disappear while it is searched; a link to a folder above would never end.
            folders[:] = [name for name in folders if not name.startswith(".")]
            if os.path.realpath(root) in seen:
                folders.clear()
                continue
            seen.add(os.path.realpath(root))
            names += [(Path(root) / name).relative_to(folder).as_posix() for name in files]
    return [folder / name for name in sorted(names) if not any(part.startswith(".") for part in name.split("/"))]


def _raise(error: OSError) -> None:
    raise error


def require_regular(path: Path) -> None:
    """Raise InputError if a local ``path`` is not an ordinary file: reading a pipe or a device may never end."""
    if is_remote(path) or path.is_file():
        return
    if path.exists():
        raise InputError(f"{path} is a folder, a pipe or a device: name an ordinary file.")
    raise InputError(f"{path} does not exist, or no longer exists: check its name.")


def content(path: Path, most: int = 64 << 20) -> bytes:
    """The bytes of a file, local or remote; InputError if it is missing, not ordinary, or has more than ``most``."""
    require_regular(path)
    # The size that a file system gives may be wrong, so the bytes that were read are counted.
    try:
        if is_remote(path):
            buffer = io.BytesIO()
            fetch(path, buffer, most + 1)
            found = buffer.getvalue()
        else:
            with path.open("rb") as file:
                found = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist, or no longer exists: check its name.") from None
    if len(found) > most:
        raise InputError(
            f"{path} is larger than {most / 1e6:.0f} MB, too large for its purpose: check that it is right."
        )
    return found


@contextmanager
def on_disk(path: Path, name: str | None = None) -> Iterator[Path]:
    """A local path with the content of ``path``: ``path`` itself, or ``name`` in a temporary folder.

    A remote file is fetched; a local file that must have another name is linked to.

    Raises:
        InputError: ``path`` does not exist or cannot be fetched.
    """
    if not is_remote(path) and name in (None, path.name):
        require_regular(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="night-") as folder:
        copy = Path(folder) / (name or path.name)
        try:
            if is_remote(path):
                with told_if_full(copy), copy.open("wb") as target:
                    fetch(path, target)
            else:
                require_regular(path)
                copy.symlink_to(path.resolve(strict=True))
        except FileNotFoundError:
            raise InputError(f"{path} does not exist, or no longer exists: check its name.") from None
        yield copy


@contextmanager
def told_if_full(path: Path) -> Iterator[None]:
    """Raise InputError if the disk is full when ``path``, which lies in a temporary folder, is written."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        written = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
        raise InputError(
            f"the disk of {path.parent.parent} is full: {path.name} needs more than the {written / 1e6:.1f} MB that "
            "could be written; free some space, and run the same command again."
        ) from None


def read_json(path: Path) -> Any:
    """The value in a JSON file; InputError if the file is absent or not JSON."""
    try:
        return json.loads(content(path))
    except InputError:
        raise
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not valid JSON and may be damaged: restore it, or remove its folder.") from None
