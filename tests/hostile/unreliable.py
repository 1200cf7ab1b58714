"""A proxy between a program and a server, which lets one request in ten come to grief."""

import http.client
import http.server
import itertools
import threading
import time
from collections import Counter
from contextlib import contextmanager
from urllib.parse import urlsplit

MISHAPS = ("dropped", "delayed", "truncated", "refused")


@contextmanager
def unreliable(address: str, every: int = 10):
    """The address of a proxy of the server at ``address``, and how often it did what."""
    target, done, numbers, lock = urlsplit(address).netloc, Counter(), itertools.count(1), threading.Lock()

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def handle_one_request(self):
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

        def pass_on(self):
            with lock:
                number = next(numbers)
                mishap = MISHAPS[number // every % len(MISHAPS)] if number % every == 0 else ""
                done[mishap] += 1
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if mishap == "dropped":
                self.close_connection = True
                return
            if mishap == "delayed":
                time.sleep(1)
            if mishap == "refused":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server = http.client.HTTPConnection(target, timeout=60)
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "server", "date", "content-length"):
                    self.send_header(name, value)
            told = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", told or "0")
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if mishap == "truncated" else content)
            if mishap == "truncated":
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", done
    finally:
        proxy.shutdown()
        proxy.server_close()
