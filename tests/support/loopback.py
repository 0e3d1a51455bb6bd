"""HTTP on loopback: a server that stands for a service, and a request to any server."""

import http.client
import http.server
import os
import random
import socket
import threading
from contextlib import contextmanager, suppress

# Below the range that the kernel hands out by itself; each process of pytest-xdist has its own of these, for
# what was found free must stay free until the server that it is meant for has started.
PORTS = range(
    20_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    32_000,
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)


def free_port():
    """A free port that no other process of these tests will take."""
    while True:
        with socket.socket() as listener, suppress(OSError):
            port = random.SystemRandom().choice(PORTS)  # hypothesis gives every process the same seed
            listener.bind(("0.0.0.0", port))
            return port


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with `post`, `get` and `head`, without logging requests."""

    def do_POST(self):
        self.post()

    def do_GET(self):
        self.get()

    def do_HEAD(self):
        self.head()

    def read(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def listening(handler, *, address="127.0.0.1", **attributes):
    """A server on a free port, with attributes for its handler."""
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        vars(server).update(attributes)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def request(address, port, method, path, body=None, headers=None, timeout_s=30):
    """Status, headers and body of one request on a new connection."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()
