"""Fetch and check the published RecSleepNet checkpoints: ``python -m recsleep.weights sleepedfx``."""

import argparse
import csv
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import command_line
from data.databases import database
from data.terms import InputError, in_one_line
from data.writing import remove_unfinished, require_writable, written_aside

if TYPE_CHECKING:
    from requests import RequestException
    from tqdm import tqdm
    from tqdm.utils import CallbackIOWrapper

REPOSITORY, COMMIT = "CMACH508/RecSleepNet", "08571e85a8330e41b4f124baad5a33fbd3207e32"
SOURCE = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/pretrained_model"

TERMS = f"""\
These weights are the work of RecSleepNet's authors, who publish them at
https://github.com/{REPOSITORY}/tree/{COMMIT}/pretrained_model
The README there states their terms under "Licence": "For academic and non-commercial use only", "Apache License 2.0".
Where these two differ, the first allows less: ask the authors before any use that is not academic and non-commercial.
"""
TERMS_FILE = "TERMS.txt"

SIDE_BY_SIDE = 4
"""How many folds are fetched at the same time."""
TIMEOUT = 30.0
"""How many seconds to wait for a server's answer."""
PAUSES = (1, 3)
"""Seconds before the second and the third try, if the network or the server failed."""
CHUNK = 1 << 14
"""Bytes written at once."""
AGAIN = "then run the same command again, which fetches only the rest"


class PublishedFile(NamedTuple):
    """One file of a published checkpoint: its place, its size in bytes and its SHA-256 in hexadecimal digits."""

    db: str
    fold: int
    name: str
    size: int
    sha256: str

    @property
    def path(self) -> str:
        """Its path in the published folder, and in ours."""
        return f"{self.db}/{self.fold}/{self.name}"

    def is_in(self, folder: Path) -> bool:
        """Whether ``folder`` holds this file, and not another one with its name."""
        from pooch import file_hash

        path = folder / self.path
        return path.is_file() and path.stat().st_size == self.size and file_hash(path) == self.sha256


def published() -> list[PublishedFile]:
    """All 195 files of the 65 published checkpoints."""
    with Path(__file__).with_name("published_checkpoints.csv").open(newline="", encoding="utf-8") as file:
        return [
            PublishedFile(db, int(k), name, int(size), sha) for db, k, name, size, sha in list(csv.reader(file))[1:]
        ]


def fetch(files: Sequence[PublishedFile], folder: Path, source: str = SOURCE, timeout: float = TIMEOUT) -> None:
    """Fetch those of ``files`` that ``folder`` lacks into ``folder/<db>/<fold>/``, with a progress bar.

    Each file appears whole and checked or not at all. If something fails, finished files stay, and the next call
    fetches the rest. :data:`TERMS` are written beside the folds.

    Args:
        files: the files of one database, grouped by fold.
        folder: the folder to fill.
        source: an address, or a local folder such as a clone of the repository, that holds ``<db>/<fold>/``.
        timeout: how many seconds to wait for a server's answer.

    Raises:
        InputError: the source cannot be reached, lacks a file, or holds another file with its name; or ``folder``
            cannot be written.
    """
    missing = [file for file in files if not file.is_in(folder)]
    if not missing:
        return
    source = _root(source)
    require_writable(folder)
    db = files[0].db
    remove_unfinished(folder / db)
    with _written(folder / db / TERMS_FILE) as aside:
        aside.write_text(TERMS, encoding="utf-8")
    from tqdm import tqdm

    size = sum(file.size for file in missing)
    with (
        tqdm(desc=f"fetching {db}", total=size, unit="B", unit_scale=True) as bar,
        ThreadPoolExecutor(SIDE_BY_SIDE) as pool,
    ):
        transfer = _Transfer(source, folder, timeout, bar)
        try:
            for task in as_completed([pool.submit(transfer.fetch_fold, fold) for fold in _by_fold(missing)]):
                task.result()
        finally:
            # All threads are waited for, so they must stop after a failure or Ctrl-C.
            transfer.stopped.set()
            pool.shutdown(cancel_futures=True)


def _by_fold(files: Sequence[PublishedFile]) -> list[list[PublishedFile]]:
    return [list(fold) for _, fold in groupby(files, key=lambda file: (file.db, file.fold))]


def _root(source: str) -> str:
    """The address or the folder that holds ``<db>/``; InputError if it is neither."""
    scheme, separator, server = source.partition("://")
    if separator:
        if scheme.lower() not in ("http", "https") or not server.strip("/"):
            raise InputError(f"--from {source}: name a server's address, http:// or https://, or a folder.")
        return source.rstrip("/")
    if not Path(source).is_dir():
        raise InputError(f"--from {source}: there is no such folder: name another one, or a server's address.")
    inside = Path(source) / "pretrained_model"
    return str(inside if inside.is_dir() else source)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A path to which ``path``'s new content is to be written; an error such as a full disk becomes an InputError."""
    from requests import RequestException

    try:
        with written_aside(path) as aside:
            yield aside
    except RequestException:
        raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): make room, or name another folder with --to, and {AGAIN}."
        ) from None


@dataclass
class _Transfer:
    """What the fetching threads share: the source, the folder, the progress bar, and whether to stop."""

    source: str
    folder: Path
    timeout: float
    bar: "tqdm"
    stopped: threading.Event = field(default_factory=threading.Event)

    def fetch_fold(self, files: Sequence[PublishedFile]) -> None:
        # A fold counts as complete if its index is there, so the index comes last.
        for file in sorted(files, key=lambda file: file.name.endswith(".index")):
            self._fetch(file, f"{self.source}/{file.path}")

    def _fetch(self, file: PublishedFile, address: str) -> None:
        """Fetch a file in up to three tries, unless the server refuses it."""
        from requests import RequestException

        for pause in (*PAUSES, None):
            try:
                self._try(file, address)
                return
            except RequestException as error:
                refused = error.response is not None and error.response.status_code < 500
                if refused or pause is None:
                    offline = f"check the network, and {AGAIN}, or give a local copy with --from FOLDER"
                    hint = "name another source with --from" if refused else offline
                    raise InputError(f"{address} cannot be fetched ({_reason(error)}): {hint}.") from None
            if self.stopped.wait(pause):
                raise CancelledError

    def _try(self, file: PublishedFile, address: str) -> None:
        from pooch import file_hash
        from tqdm.utils import CallbackIOWrapper

        arrived = 0

        def count(size: int) -> None:
            nonlocal arrived
            arrived += size
            self._advance(size)
            if self.stopped.is_set():
                raise CancelledError
            if arrived > file.size:
                raise _not_published(address)

        try:
            with _written(self.folder / file.path) as aside:
                with aside.open("wb") as opened:
                    self._copy(address, CallbackIOWrapper(count, opened, "write"))
                if file_hash(aside) != file.sha256:
                    raise _not_published(address)
        except BaseException:
            self._advance(-arrived)
            raise

    def _copy(self, address: str, opened: "CallbackIOWrapper") -> None:
        if "://" in address:
            from pooch import HTTPDownloader

            HTTPDownloader(chunk_size=CHUNK, timeout=self.timeout)(address, opened, None)
            return
        try:
            content = Path(address).read_bytes()
        except OSError as error:
            raise InputError(
                f"{address} cannot be read ({error.strerror}): name a folder with --from that holds all these files."
            ) from None
        opened.write(content)

    def _advance(self, size: int) -> None:
        with self.bar.get_lock():
            self.bar.update(size)


def _not_published(address: str) -> InputError:
    return InputError(
        f"{address} is not the published file, so it was changed or is damaged: name another source with --from."
    )


def _reason(error: "RequestException") -> str:
    """Why a download failed: the server's answer, or what the operating system said about the connection."""
    if error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    cause: Exception = error
    while isinstance(cause.__context__, Exception):
        cause = cause.__context__
    return getattr(cause, "strerror", None) or in_one_line(cause)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="python -m recsleep.weights",
        description="Fetch RecSleepNet's published weights and check them. Files that are there are not fetched again.",
    )
    names = ", ".join(dict.fromkeys(file.db for file in published()))
    parser.add_argument("db", nargs="*", metavar="DB", help=f"databases, among {names} (default sleepedfx)")
    folder = "write to the folders DB/FOLD/ in this folder (default ./pretrained_model)"
    parser.add_argument("--to", type=Path, default=Path("pretrained_model"), metavar="DIR", help=folder)
    source = "address of a mirror, or local clone, that holds DB/FOLD/ (default: the published repository)"
    parser.add_argument("--from", dest="source", default=SOURCE, metavar="URL|DIR", help=source)
    parser.add_argument("--list", action="store_true", help="show the databases and what DIR holds, and fetch nothing")
    return parser.parse_args(arguments)


def weights(arguments: argparse.Namespace) -> None:
    """Fetch the weights of the named databases, or list them."""
    files = published()
    known = list(dict.fromkeys(file.db for file in files))
    wanted = [database(name).db for name in arguments.db] or (known if arguments.list else ["sleepedfx"])
    for db in wanted:
        if db not in known:
            raise InputError(f"no weights for {db} are published: choose among {', '.join(known)}.")
    chosen = {db: [file for file in files if file.db == db] for db in wanted}
    if arguments.list:
        print(*(_listing(own, arguments.to) for own in chosen.values()), sep="\n")
        return
    from recsleep.predictor import load_stager

    print(TERMS)
    for db, own in chosen.items():
        fetch(own, arguments.to, arguments.source)
        there = arguments.to / db
        print(f"{db}: all {len(_by_fold(own))} folds are in {there}.")
        # Loading writes the ONNX file that stages; only this needs TensorFlow.
        load_stager(there)
        print(f"To stage a recording with them: python predict.py --recording night.edf --dir {there}")


def _listing(files: Sequence[PublishedFile], folder: Path) -> str:
    folds = _by_fold(files)
    complete = sum(all(file.is_in(folder) for file in fold) for fold in folds)
    state = f"complete in {folder}" if complete == len(folds) else f"{complete} of them in {folder}"
    return f"{files[0].db:<9}  {len(folds)} folds  {sum(file.size for file in files) / 1e6:5.1f} MB  {state}"


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: weights(parsed), "python -m recsleep.weights")


if __name__ == "__main__":
    sys.exit(main())
