"""Web servers that refuse, lead round in circles, fail, fall silent and break off."""

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import pytest
from hostile.unreliable import MISHAPS, unreliable
from recordings import wave, write_edf

from data import store
from data.store import content, location, on_disk
from data.terms import InputError
from recsleep.model import RecSleepNet
from runs.networks import save_model
from staging.recordings import find_recordings

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def server(monkeypatch):
    """The address of a server whose files say in their names how they fail, and how often each was asked for."""
    asked: list[tuple[str, str]] = []
    released = threading.Event()

    class Failing(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, body: bool):
            how = self.path.strip("/").removesuffix(".edf")
            tries = sum(path == self.path for method, path in asked if method == "GET")
            asked.append((self.command, self.path))
            first, last, size = 0, len(CONTENT) - 1, len(CONTENT)
            if how.isdecimal() or (how == "once" and body and not tries):
                self.send_error(int(how) if how.isdecimal() else 500)
                return
            if how == "round":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
                return
            ranged = how != "whole" and self.headers.get("Range")
            if ranged:
                first, last = (int(n or size - 1) for n in ranged.removeprefix("bytes=").split("-"))
                last = min(last, size - 1)
            self.send_response(206 if ranged else 200)
            if ranged:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last + 1 - first))
            if how != "whole":
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if not body:
                return
            part = CONTENT[first : last + 1]
            broken = how in ("breaks", "whole") and not tries
            self.wfile.write(part[: len(part) // 2] if broken or how == "silent" else part)
            if broken:
                self.close_connection = True
            if how == "silent":
                self.wfile.flush()
                released.wait(20)

    monkeypatch.setattr(store, "TIMEOUT", 0.3)
    monkeypatch.setattr(store, "PAUSES", (0.01, 0.02))
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}", asked
    released.set()
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("403.edf", "cannot be reached .*403"),
        ("500.edf", "cannot be reached .*500"),
        ("round.edf", "cannot be reached"),
        ("404.edf", "does not exist"),
    ],
)
def test_what_a_server_said_is_told(server, name, told):
    path = location(f"{server[0]}/{name}")
    with pytest.raises(InputError, match=told), on_disk(path):
        pass
    with pytest.raises(InputError, match=told):
        content(path)
    with pytest.raises(InputError, match=told):
        find_recordings([str(path)[:-4]])


@pytest.mark.timeout(20)
def test_a_server_that_falls_silent_is_left(server):
    address, asked = server
    with pytest.raises(InputError, match="cannot be reached"), on_disk(location(f"{address}/silent.edf")):
        pass
    assert sum(method == "GET" for method, _ in asked) >= 3


@pytest.mark.parametrize("name", ["once", "breaks", "whole"])
def test_what_fails_once_is_tried_again(server, name):
    with on_disk(location(f"{server[0]}/{name}.edf")) as local:
        assert local.read_bytes() == CONTENT


@pytest.mark.parametrize("address", ["http://[::1/x.edf", "http://[/x.edf"])
def test_what_is_no_address(address):
    with pytest.raises(InputError, match="is not a valid address"):
        location(address)


@pytest.mark.long
def test_a_batch_and_a_training_on_a_store_that_fails_at_one_request_in_ten(s3_server, make_night, tmp_path, project):
    """Results, weights and predictions are those from files on this disk."""
    for subject in (2, 3, 5, 6):
        make_night(tmp_path / "disk/nights" / f"ucddb{subject:03d}.npz", 12, seed=subject)
    for number in range(4):
        write_edf(tmp_path / f"disk/raw/n{number}.edf", {"EEG C3-A2": (wave(320 + number, 100), 100, "uV")})
    bucket = location("s3://nights/unreliable")
    for path in [*(tmp_path / "disk").rglob("*.*")]:
        with (bucket / str(path.relative_to(tmp_path / "disk"))).open("wb") as file:
            file.write(path.read_bytes())
    metadata = {"db": "ucddb", "channel": "EEG C3-A2", "split": {"test": [0]}, "amplitude": 12.5}
    save_model(tmp_path / "models/0", RecSleepNet(filters=4, first_kernel=12, lstm_units=4, block_kernel=3), metadata)
    small = ("filters=4", "lstm_units=4", "passes=1", "reconstruction_passes=1", "subjects=(2, 3, 5, 6)", "folds=2")

    def work(place: Path, trained: Path, address: str = s3_server) -> dict[str, bytes]:
        stage = ["predict.py", "--dir", tmp_path / "models", "--recording", place / "raw", "--out", place / "staged"]
        train = ["trainer.py", "--db", "ucddb", "--data", place / "nights", "--to_fold", "0", "--out", trained]
        for command in (stage, [*train, *(part for value in small for part in ("--set", value))]):
            ran = subprocess.run(
                [sys.executable, *map(str, command)],
                cwd=project,
                env=os.environ | {"AWS_ENDPOINT_URL": address},
                capture_output=True,
                text=True,
            )
            assert ran.returncode == 0, ran.stderr
        fold = trained / "ucddb/0"
        files = [path for path in (place / "staged").iterdir() if path.suffix in (".csv", ".edf", ".png", ".tsv")]
        results = {path.name: path.read_bytes() for path in [*files, *(fold / "predictions").iterdir()]}
        # The table of all recordings says where they are.
        del results["summary.csv"]
        with h5py.File(fold / "model.weights.h5") as weights:
            weights.visititems(
                lambda name, part: results.update({name: part[()].tobytes()} if hasattr(part, "dtype") else {})
            )
        return results

    whole = work(tmp_path / "disk", tmp_path / "trained")
    with unreliable(s3_server) as (address, done):
        assert work(bucket, tmp_path / "disturbed", address) == whole
    assert len(whole) > 30
    assert all(done[mishap] for mishap in MISHAPS), done
