"""The published weights: fetched from a web server on this machine, which misbehaves, and from folders."""

import csv
import hashlib
import http.server
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import predict
import recsleep
from data.databases import DATABASES
from data.terms import InputError
from recsleep import weights
from recsleep.weights import PublishedFile, fetch, main, published

PARTS = ("model.ckpt-7.data-00000-of-00001", "model.ckpt-7.index", "checkpoint")
SIZES = (300_000, 700, 99)


def content(fold: int, name: str) -> bytes:
    size = SIZES[PARTS.index(name)]
    return np.random.default_rng([fold, size]).bytes(size)


TABLE = [
    PublishedFile("isruc", fold, name, len(content(fold, name)), hashlib.sha256(content(fold, name)).hexdigest())
    for fold in range(6)
    for name in PARTS
]


class Site:
    """A web server that holds the files of ``TABLE``, and what it does when it is asked for each path.

    Attributes:
        address: of the folder that holds ``isruc/``.
        asked: the paths that were asked for.
        answers: what each path, or every other path ``*``, answers before it answers well; always, if that is said.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, list[str]] = {}
        self.released = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = self.path.removeprefix("/mirror/")
                site.asked.append(path)
                answers = site.answers.get(path) or site.answers.get("*", [])
                answer = answers[0] if answers and answers[0].endswith("always") else answers.pop(0) if answers else ""
                _, fold, name = path.split("/")
                body = content(int(fold), name) if name in PARTS else b"\0" * 3_439_644
                if answer[:3].isdecimal():
                    self.send_error(int(answer[:3]))
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) * (2 if answer == "longer" else 1)))
                self.end_headers()
                if answer.startswith(("cut", "stall")):
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    if answer.startswith("stall"):
                        site.released.wait()
                    self.close_connection = True
                elif answer == "trickle always":
                    while not site.released.wait(0.02):
                        self.wfile.write(bytes(1000))
                else:
                    self.wfile.write({"lie": bytes(len(body)), "longer": body * 2}.get(answer, body))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None
        self.address = f"http://127.0.0.1:{self.server.server_port}/mirror"
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(weights, "PAUSES", (0.01, 0.02))
    opened = Site()
    yield opened
    opened.close()


def data_file(fold: int) -> str:
    return f"isruc/{fold}/{PARTS[0]}"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


EXPECTED = {file.path: content(file.fold, file.name) for file in TABLE}


def require_whole(folder: Path) -> None:
    found = files_in(folder)
    assert "academic and non-commercial use only" in found.pop("isruc/TERMS.txt").decode()
    assert found == EXPECTED


def refusal(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        fetch(TABLE, *arguments, **options)
    return str(caught.value)


def require_only_whole_files(folder: Path) -> None:
    found = files_in(folder)
    found.pop("isruc/TERMS.txt", None)
    assert found.items() <= EXPECTED.items()


def test_the_table_is_of_all_folds_of_four_databases():
    files = published()
    assert len(files) == 195 and len({file.path for file in files}) == 195
    folds = {(file.db, file.fold) for file in files}
    assert folds == {(db, k) for db in ("sleepedf", "sleepedfx", "isruc", "ucddb") for k in range(DATABASES[db].folds)}
    assert len(folds) == 65
    for db, fold in folds:
        names = sorted(file.name.partition(".ckpt-")[2].partition(".")[2] for file in files if file[:2] == (db, fold))
        assert names == ["", "data-00000-of-00001", "index"]


def test_the_table_is_the_reference(reference):
    with (reference / "published_checkpoints.csv").open(newline="") as file:
        rows = [(r["db"], int(r["fold"]), r["file"], int(r["bytes"]), r["sha256"]) for r in csv.DictReader(file)]
    assert published() == rows


def test_fetched_once_and_whole(site, tmp_path):
    fetch(TABLE, tmp_path / "a/b", site.address)
    require_whole(tmp_path / "a/b")
    assert sorted(site.asked) == sorted(EXPECTED)
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert all((tmp_path / "a/b" / path).stat().st_mode == usual for path in EXPECTED)
    fetch(TABLE, tmp_path / "a/b", site.address)
    assert len(site.asked) == len(TABLE)


def test_only_what_is_missing_or_damaged_is_fetched(site, tmp_path):
    fetch(TABLE, tmp_path, f"{site.address}/")
    (tmp_path / TABLE[0].path).write_bytes(bytes(TABLE[0].size))
    (tmp_path / TABLE[4].path).write_bytes(b"short")
    (tmp_path / TABLE[8].path).unlink()
    site.asked.clear()
    fetch(TABLE, tmp_path, site.address)
    assert sorted(site.asked) == sorted(TABLE[k].path for k in (0, 4, 8))
    require_whole(tmp_path)


def test_the_index_that_makes_a_fold_comes_last(site, tmp_path):
    fetch(TABLE[:3], tmp_path, site.address)
    assert site.asked[-1].endswith(".index")


@pytest.mark.parametrize("answers", [["cut"], ["cut", "cut"], ["500"], ["500", "503"], ["stall"]])
def test_what_passes_is_tried_again(site, tmp_path, answers, capsys):
    site.answers[data_file(2)] = list(answers)
    fetch(TABLE, tmp_path, site.address, timeout=0.5)
    require_whole(tmp_path)
    assert site.asked.count(data_file(2)) == 1 + len(answers)
    # What the failed tries brought does not count.
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "tries", "told"),
    [
        ("404 always", 1, "404 Not Found): name another source with --from"),
        ("500 always", 3, "500 Internal Server Error): check the network, and then run the same command again"),
        ("cut always", 3, "IncompleteRead(150000 bytes read, 150000 more expected)): check the network"),
        ("stall always", 3, "fetches only the rest, or give a local copy with --from FOLDER."),
        ("lie", 1, "is not the published file"),
        ("longer", 1, "is not the published file"),
    ],
)
def test_what_stays_wrong_is_said_and_the_rest_is_kept(site, tmp_path, answer, tries, told):
    fetch([file for file in TABLE if file.fold != 4], tmp_path, site.address)
    site.answers[data_file(4)] = [answer]
    sentence = refusal(tmp_path, site.address, timeout=0.3)
    assert sentence.startswith(f"{site.address}/{data_file(4)} ") and told in sentence and "\n" not in sentence
    assert site.asked.count(data_file(4)) == tries
    assert files_in(tmp_path).keys() == {f.path for f in TABLE if f.fold != 4} | {"isruc/TERMS.txt"}
    site.answers.clear()
    site.asked.clear()
    fetch(TABLE, tmp_path, site.address)
    assert sorted(site.asked) == sorted(f.path for f in TABLE if f.fold == 4)
    require_whole(tmp_path)


def test_one_failure_ends_the_other_downloads(site, tmp_path):
    site.answers["*"] = ["trickle always"]
    site.answers[data_file(1)] = ["404 always"]
    assert "404" in refusal(tmp_path, site.address)
    assert files_in(tmp_path).keys() == {"isruc/TERMS.txt"}


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PAUSES", (0.01, 0.02))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert "(Connection refused): check the network" in refusal(tmp_path, closed)
    # What the system says of an unknown host differs; it is not the library's long account.
    sentence = refusal(tmp_path, "http://no-such-host.invalid")
    assert "): check the network" in sentence and "HTTPConnectionPool" not in sentence


def command(site, folder: Path) -> list[str]:
    return [sys.executable, "-m", "recsleep.weights", "--from", site.address, "--to", str(folder)]


def start(site, folder: Path, project: Path) -> subprocess.Popen:
    """The command in a process of its own, which has opened files to write weights to."""
    site.answers["*"] = ["trickle always"]
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    # A shell that runs the tests in the background has its children ignore Ctrl-C.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command(site, folder), cwd=project, **options)
    while not site.asked:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


def test_ctrl_c_leaves_nothing_half_written(site, tmp_path, project):
    process = start(site, tmp_path, project)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.endswith("stopped; run the same command again to continue.\n") and "Traceback" not in error
    assert files_in(tmp_path).keys() == {"sleepedfx/TERMS.txt"}


def test_a_killed_fetch_leaves_nothing_that_counts_and_is_cleaned_up(site, tmp_path, project):
    process = start(site, tmp_path, project)
    process.kill()
    process.communicate()
    left = [path for path in files_in(tmp_path) if not path.endswith("TERMS.txt")]
    assert left and all("/.unfinished-" in path for path in left)
    (tmp_path / "sleepedfx").rename(tmp_path / "isruc")
    site.answers.clear()
    fetch(TABLE, tmp_path, site.address)
    require_whole(tmp_path)


def test_a_full_disk(site, tmp_path, project):
    """A limit on the size of files stands for the disk: the system refuses the write in the same way."""
    limited = ["sh", "-c", 'ulimit -f 200; exec "$@"', "sh", *command(site, tmp_path)]
    ran = subprocess.run(limited, cwd=project, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "cannot be written (File too large): make room, or name another folder with --to" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert files_in(tmp_path).keys() == {"sleepedfx/TERMS.txt"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["isrucs"], "unknown database 'isrucs': did you mean isruc?"),
        (["shhs"], "no weights for shhs are published: choose among isruc, sleepedf, sleepedfx, ucddb."),
        (["--from", "absent"], "--from absent: there is no such folder: name another"),
        (["--from", "."], "cannot be read (No such file or directory): name a folder with --from"),
        (["--from", "ftp://a/b"], "--from ftp://a/b: name a server's address, http:// or https://, or a folder."),
        (["--from", "https://"], "--from https://: name a server's address"),
        (["--to", "file/models"], "the folder file/models cannot be written (Not a directory)"),
    ],
)
def test_wrong_arguments(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("python -m recsleep.weights: error: ") and told in error
    assert not list(tmp_path.rglob("*.index"))


def test_a_local_copy_that_lies(tmp_path):
    for path, body in EXPECTED.items():
        (tmp_path / "clone/pretrained_model" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone/pretrained_model" / path).write_bytes(body)
    fetch(TABLE, tmp_path / "whole", str(tmp_path / "clone"))
    require_whole(tmp_path / "whole")
    (tmp_path / "clone/pretrained_model" / data_file(5)).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    sentence = refusal(tmp_path / "part", str(tmp_path / "clone/pretrained_model"))
    assert f"{data_file(5)} is not the published file" in sentence
    require_only_whole_files(tmp_path / "part")


def test_the_list_needs_no_network_and_tells_what_is_there(site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "published", lambda: TABLE)
    listed = ["--list", "--from", "http://no-such-host.invalid", "--to", str(tmp_path)]
    assert main(listed) == 0
    assert capsys.readouterr().out == f"isruc      6 folds    1.8 MB  0 of them in {tmp_path}\n"
    assert not any(tmp_path.iterdir())
    fetch(TABLE[:7], tmp_path, site.address)
    capsys.readouterr()
    assert main([*listed, "isurc"]) == 0
    assert "6 folds    1.8 MB  2 of them in" in capsys.readouterr().out
    fetch(TABLE, tmp_path, site.address)
    assert main(listed) == 0
    assert f"complete in {tmp_path}" in capsys.readouterr().out


def test_the_list_of_all_that_is_published(tmp_path, capsys):
    assert main(["--list", "--to", str(tmp_path)]) == 0
    lines = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["isruc", "10", "folds", "34.4"],
        ["sleepedf", "20", "folds", "68.8"],
        ["sleepedfx", "10", "folds", "34.4"],
        ["ucddb", "25", "folds", "86.0"],
    ]


def test_the_published_weights_stage(reference, tmp_path, capsys):
    pytest.importorskip("tensorflow", reason="TensorFlow reads the TensorFlow-1 checkpoints")
    assert main(["--from", str(reference), "--to", str(tmp_path)]) == 0
    assert (tmp_path / "sleepedfx" / "model.onnx").is_file()
    printed = capsys.readouterr()
    assert "academic and non-commercial use only" in printed.out and "100%" in printed.err
    assert f"sleepedfx: all 10 folds are in {tmp_path / 'sleepedfx'}" in printed.out
    golden = np.load(reference / "goldens/recsleepnet_sleepedfx_fold0.npz")
    expected = np.exp(golden["logits"]) / np.exp(golden["logits"]).sum(axis=1, keepdims=True)
    (fold,) = recsleep.load_stager(tmp_path / "sleepedfx/0").predictors
    np.testing.assert_allclose(fold.probabilities({"eeg": golden["x"]}), expected, atol=1e-4)
    assert main(["--to", str(tmp_path), "--from", "http://no-such-host.invalid"]) == 0


def test_staging_without_models_names_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ways = "fetch RecSleepNet's published models with `make weights` or `python -m recsleep.weights [DB]`"
    assert predict.main(["--recording", "night.edf"]) == 2
    assert f"the folder of models pretrained_model does not exist: {ways}" in capsys.readouterr().err
    with pytest.raises(InputError, match="the folder of models absent does not exist: fetch"):
        recsleep.load_stager("absent")
    # Folders with models, below and beside, are named first; five are enough.
    for number, place in enumerate(("0", "ucddb/3", "isruc", "sleepedf/1/2", "9", "1")):
        for name in ("a", "b/c"):
            (tmp_path / f"{name}{number}/{place}").mkdir(parents=True)
            (tmp_path / f"{name}{number}/{place}/metadata.json").touch()
    near = " or ".join(f"b/c{number}" for number in (0, 1, 2, 4, 5))
    assert predict.main(["--dir", "b"]) == 2
    assert f"b holds no trained model: name {near}, where models are, or fetch" in capsys.readouterr().err
    with pytest.raises(InputError, match="absent does not exist: name a0 or a1 or a2 or a4 or a5, where"):
        recsleep.load_stager("absent")
    (tmp_path / "pretrained_model/ucddb").mkdir(parents=True)
    assert predict.main(["--db", "isruc"]) == 2
    assert f"pretrained_model holds no trained model of isruc, but of ucddb: {ways}" in capsys.readouterr().err
