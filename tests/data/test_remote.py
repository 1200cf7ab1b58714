"""Recordings and nights in remote stores: a real S3 server and a real web server on this machine."""

import http.server
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import recordings

import trainer
from data.databases import DATABASES
from data.nights.folds import find_nights
from data.nights.night import read_night
from data.prepare.__main__ import main
from data.store import files_below, location
from data.terms import InputError
from data.writing import require_writable

CODES = "0012233355001122"
SMALL = ["reconstruction_passes=1", "passes=1", "filters=4", "lstm_units=4", "window_epochs=5"]


pytestmark = pytest.mark.usefixtures("s3_server")


@pytest.fixture
def bucket(request):
    """A folder of its own in the bucket."""
    return f"s3://nights/{request.node.name.replace('[', '-').replace(']', '')}"


def upload(folder, target: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            remote = location(target) / path.relative_to(folder).as_posix()
            remote.fs.put_file(str(path), remote.path)


@pytest.fixture
def web(tmp_path):
    """The address of a web server that shows ``tmp_path``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_prepared_in_a_bucket_as_on_disk(tmp_path, bucket, form, capsys):
    for number in (1, 2):
        recordings.isruc(tmp_path / "raw", CODES, number)
    upload(tmp_path / "raw", f"{bucket}/raw")
    remote = ["--db", "isruc", "--data", f"{bucket}/raw", "--out", f"{bucket}/out", "--format", form]
    assert main(remote) == 0
    assert main(["--db", "isruc", "--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 0
    ending = ".npz" if form == "npz" else ""
    for n in range(2):
        there = read_night(f"{bucket}/out/subject{n}{ending}", ["C3-A2"])
        here = read_night(tmp_path / "out" / f"subject{n}.npz", ["C3-A2"])
        assert np.array_equal(there.signals, here.signals) and np.array_equal(there.stages, here.stages)
    assert "nights.csv" in [path.name for path in files_below(location(f"{bucket}/out"))]
    capsys.readouterr()
    assert main(remote) == 0
    assert capsys.readouterr().out.count(" kept ") == 2


def test_recordings_from_a_web_server(tmp_path, web):
    recordings.sleepedf(tmp_path / "raw", "W12344RRW")
    assert main(["--db", "sleepedf", "--data", f"{web}/raw", "--out", str(tmp_path / "out")]) == 0
    nights = find_nights(DATABASES["sleepedf"], location(f"{web}/out"))
    assert [path.name for path in nights[0]] == ["SC4001E0.npz"]
    assert read_night(nights[0][0], ["EEG Fpz-Cz"]).stages.tolist() == [0, 1, 2, 3, 3, 3, 4, 4, 0]


def test_remote_refusals_are_told(tmp_path, web, capsys, monkeypatch):
    with pytest.raises(InputError, match="a web server can only be read, not written"):
        require_writable(location(f"{web}/out"))
    with pytest.raises(InputError, match="there is no such bucket: make it first"):
        require_writable(location("s3://no-such-bucket/out"))
    with pytest.raises(InputError, match="does not exist or is empty"):
        files_below(location("s3://no-such-bucket/raw"))
    with pytest.raises(InputError, match="does not exist"):
        read_night("s3://nights/nothing.npz", ["C3-A2"])
    with pytest.raises(InputError, match="does not exist"):
        read_night(f"{web}/nothing.npz", ["C3-A2"])
    assert trainer.main(["--db", "ucddb", "--data", "s3://no-such-bucket/x", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "s3://no-such-bucket/x does not exist" in error and "Traceback" not in error
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match="gs:// needs the package gcsfs: install it with pip install"):
        location("gs://bucket/isruc")


def test_a_store_that_does_not_answer(project):
    """In a process of its own: connections are kept, and this one must find none."""
    code = (
        "import os, sys; os.environ.update(AWS_ENDPOINT_URL='http://127.0.0.1:1', AWS_ACCESS_KEY_ID='a', "
        "AWS_SECRET_ACCESS_KEY='b', AWS_MAX_ATTEMPTS='1')\n"
        "from data.prepare.__main__ import main\n"
        "sys.exit(main(['--db', 'isruc', '--data', 's3://bucket/raw']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "s3://bucket/raw cannot be reached" in ended.stderr and "Traceback" not in ended.stderr
