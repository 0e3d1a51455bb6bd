"""Measures the cost of one request: each bomb in a fork of an idle process, with a memory limit.

    python -m tests.attacks.measure NAME=SHARE ...

prints a line of JSON for each: outcome, CPU time in s, memory above the idle process in MiB. The request is read and
prepared as in a worker, but without a network.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

from sagemaker_monai.budget import MIB, Limits, spending
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.several import split_arrays
from sagemaker_monai.preprocessing.medical import LoadVolume
from sagemaker_monai.preprocessing.photograph import LoadPhotograph
from sagemaker_monai.requests.media_types import read_request
from tests.attacks.bombs import BOMBS, size_of

ROOM_MIB = 640  # what RLIMIT_DATA leaves above the idle process, as a worker's
SIZE = (16, 16, 16)
PICTURES = ("image/", "application/json", "multipart/", "application/gzip")
VOLUME = LoadVolume(1, SIZE, "stretch", "RAS", None, {"kind": "window", "center": 40, "width": 400})
PICTURE = LoadPhotograph(3, SIZE[:2], "stretch")


def answer(content_type: str, body: bytes) -> list[tuple[int, ...]]:
    """The shapes of the images of a request; raises as its readers do."""
    is_picture = content_type.startswith(PICTURES)
    load = PICTURE if is_picture else VOLUME
    samples = split_arrays(read_request(body, content_type), spatial_dims=load.spatial_dims)
    return [values.shape for sample in samples for values, _ in load.pixels_of_each(sample)]


def _memory_mib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


def cost_of(content_type: str, body: bytes) -> dict[str, object]:
    """Answer a request in a fork of this process, and say what came out and what it took."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        result: dict[str, object] = {"outcome": "died"}
        try:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
            resource.setrlimit(resource.RLIMIT_DATA, ((_memory_mib("VmData:") + ROOM_MIB) * MIB,) * 2)
            before, started, budget = _memory_mib("VmRSS:"), time.process_time(), Limits().budget(len(body))
            try:
                with spending(budget):
                    result = {"outcome": "answered", "shapes": sorted(set(answer(content_type, body)))}
            except CallerError as error:
                result = {"outcome": error.code, "message": str(error)}
            except BaseException as error:
                result = {"outcome": "fault", "message": repr(error)}
            result["cpu_s"] = round(time.process_time() - started, 2)
            # The body was there before, and is the request's.
            result["memory_mib"] = _memory_mib("VmHWM:") - before + len(body) // MIB
        finally:
            os.write(writing, json.dumps(result).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text or b'{"outcome": "died"}')


def main(wanted: list[str]) -> None:
    """Measure the bombs that are named."""
    cost_of(*BOMBS["PNG"](16))  # imports what reading needs, in a process that ends
    for content_type, body in (BOMBS["PNG"](16), BOMBS["NIfTI"](16), BOMBS["frames of JPEG-LS"](16)):
        answer(content_type, body)  # and in this one
    for each in wanted:
        name, _, share = each.partition("=")
        content_type, body = BOMBS[name](size_of(name, float(share)))
        print(json.dumps({"name": name, "share": float(share), "body_bytes": len(body), **cost_of(content_type, body)}),
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
