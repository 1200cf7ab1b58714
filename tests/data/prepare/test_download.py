"""``--download``: MNE's own loading code against a web server on this machine."""

import hashlib
import http.server
import threading
from functools import partial

import pytest
import recordings
from mne.datasets.sleep_physionet import age

from data.nights.night import read_night
from data.prepare.__main__ import main


@pytest.fixture
def physionet(tmp_path, monkeypatch):
    """Subjects 0 and 1 of Sleep-EDF on a server of our own; yields the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.rpartition("/")[2])
            super().do_GET()

        def log_message(self, *_):
            pass

    served = tmp_path / "served"
    rows = ["subject,record,type of record,a,b,c,sha,fname"]
    for subject, night in ((0, 1), (0, 2), (1, 1)):
        psg = recordings.sleepedf(served, "W12344RRW", f"SC4{subject:02d}{night}E0")
        for kind, path in (("PSG", psg), ("Hypnogram", psg.with_name(f"{psg.name[:7]}C-Hypnogram.edf"))):
            sha = hashlib.sha1(path.read_bytes()).hexdigest()
            rows.append(f"{subject},{night},{kind},,,,{sha},{path.name}")
    (tmp_path / "records.csv").write_text("\n".join(rows))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(age, "AGE_SLEEP_RECORDS", str(tmp_path / "records.csv"))
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(age, "fetch_data", partial(age.fetch_data, base_url=address))
    yield asked
    server.shutdown()


def fetch(tmp_path) -> int:
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    return main(["--db", "sleepedf", "--download", *folders])


def test_fetched_once_and_prepared(tmp_path, physionet):
    assert fetch(tmp_path) == 0
    names = [f"SC4{night}{end}" for night in ("001", "002", "011") for end in ("E0-PSG.edf", "EC-Hypnogram.edf")]
    assert sorted(physionet) == sorted(names)
    for night in ("SC4001E0", "SC4002E0", "SC4011E0"):
        assert read_night(tmp_path / "out" / f"{night}.npz", ["EEG Fpz-Cz"]).stages.tolist() == [
            0,
            1,
            2,
            3,
            3,
            3,
            4,
            4,
            0,
        ]
    assert fetch(tmp_path) == 0
    assert len(physionet) == 6


@pytest.mark.usefixtures("physionet")
def test_a_file_that_is_not_the_published_one(tmp_path, capsys):
    with (tmp_path / "served" / "SC4011E0-PSG.edf").open("ab") as file:
        file.write(b"more")
    assert fetch(tmp_path) == 2
    error = capsys.readouterr().err
    assert "subject 1 of sleepedf could not be downloaded" in error and "Traceback" not in error


def test_a_server_that_does_not_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(age, "fetch_data", partial(age.fetch_data, base_url="http://127.0.0.1:1"))
    assert fetch(tmp_path) == 2
    assert "subject 0 of sleepedf could not be downloaded" in capsys.readouterr().err
