"""A fake container that starts in a tenth of a second; the variable BEHAVIOUR decides what `train` and `serve` do."""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])
CAPACITY = 2  # loaded models


# Training


def report():
    """Write down what the job was given."""
    files = {path.relative_to(BASE).as_posix(): path.read_text() for path in BASE.rglob("input/**/*") if path.is_file()}
    modes = {name: oct((BASE / name).stat().st_mode & 0o777) for name in [*files, "input/config"]}
    seen = {"environment": dict(os.environ), "files": files, "modes": modes, "words": sys.argv[1:]}
    (BASE / "model" / "report.json").write_text(json.dumps(seen))
    (BASE / "output" / "data" / "note").write_text("a note")


def fail():
    (BASE / "output" / "failure").write_text("The data is wrong. " + "x" * 2000)
    (BASE / "output" / "data" / "note").write_text("why")
    sys.exit(3)


def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (BASE / "model" / "begun").write_text("")
    print("deaf", flush=True)
    time.sleep(60)


def polite():
    def leave(*_):
        (BASE / "model" / "stopped").write_text("in time")
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    print("listening", flush=True)
    time.sleep(60)


def count():
    """Count to 20, resuming from the checkpoint; ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    file = BASE / "checkpoints" / "deep" / "number"
    number = int(file.read_text()) if file.exists() else 0
    print(f"from={number}", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    while number < 20:
        time.sleep(0.1)
        number += 1
        whole = BASE / "number"  # never half written where it may be uploaded
        whole.write_text(str(number))
        whole.replace(file)
        print(f"number={number}; score={number / 10};", flush=True)
    (BASE / "model" / "number").write_text(str(number))


def score():
    """Report the learning rate as the score."""
    given = json.loads((BASE / "input" / "config" / "hyperparameters.json").read_text())
    print(f"score={given['learning_rate']};")
    (BASE / "model" / "given.json").write_text(json.dumps(given))


# Serving


class Handler(BaseHTTPRequestHandler):
    """Answers with the body in upper case; some bodies are commands."""

    models: dict = {}  # noqa: RUF012 - of the one server

    def do_GET(self):
        if self.path == "/ping":
            time.sleep(float(os.environ.get("PING_S", "0")))
            return self.answer(int(os.environ.get("PING", "200")))
        if self.path == "/execution-parameters" and "PARAMETERS" in os.environ:
            return self.answer(200, os.environ["PARAMETERS"].encode())
        if self.path == "/models":
            return self.answer(200, json.dumps(list(self.models)).encode())
        return self.answer(404)

    def do_DELETE(self):
        self.models.pop(self.path.removeprefix("/models/"))
        self.answer(200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            return self.load(json.loads(body))
        if self.path.startswith("/models/"):
            name = self.path.split("/")[2]
            return self.answer(200, (self.models[name] / "weights").read_bytes() + b" says " + body)
        command, _, value = body.decode(errors="replace").partition(" ")
        if command == "sleep":
            time.sleep(float(value))
        if command == "die":
            os._exit(1)
        if command == "status":
            return self.answer(int(value), b"no")
        if command == "large":
            return self.answer(200, b"x" * int(value))
        if command == "tell":
            facts = {"headers": dict(self.headers), "environment": dict(os.environ), "size": len(body)}
            facts["model"] = sorted(path.name for path in (BASE / "model").iterdir())
            return self.answer(200, json.dumps(facts).encode())
        return self.answer(200, os.environ.get("SAY", "").encode() + body.upper())

    def load(self, wanted):
        folder = Path(wanted["url"])
        if not (folder / "weights").exists():
            return self.answer(500, b"broken")
        if len(self.models) >= CAPACITY:
            return self.answer(507, b"no room")
        self.models[wanted["model_name"]] = folder
        return self.answer(200)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", self.headers.get("Accept", "text/plain"))
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "from the container")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def serve():
    signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("DEAF") else lambda *_: sys.exit(0))
    print("serving", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        {each.__name__: each for each in (report, fail, stubborn, polite, count, score)}[os.environ["BEHAVIOUR"]]()
