"""Checkpoints: training state on disk, so that an interrupted job resumes and loses one epoch at most.

Each job has its own folder, named by a key of everything that decides its result; other jobs' folders are never read.
A file is `EPOCH-STEP.pt`: a line with the SHA-256 of the rest, then torch's bytes. The digest is inside because
SageMaker copies the folder to S3 and back file by file, so two files can be of different ages. A file gets its name
once it is complete on disk; the newest two stay, so that there is another one if the newest is damaged.

If a checkpoint cannot be written (a full disk), training warns and continues: the job exists to make the model, and the
previous checkpoint is untouched.
"""

import hashlib
import io
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

NAME = "{epoch:05d}-{step:07d}.pt"
PATTERN = "[0-9]*-[0-9]*.pt"
KEPT = 2
_DIGEST_LENGTH = 64  # of SHA-256 in hex
_UNFINISHED = ".*.part"


def write_checkpoint(folder: Path, state: dict[str, Any], *, epoch: int, step: int) -> bool:
    """Write a checkpoint atomically and remove all but the newest two.

    Args:
        folder: of this job; created if missing.
        state: tensors and plain values, in dicts and lists.
        epoch: completed epochs.
        step: completed steps of the next epoch.

    Returns:
        Whether it is on disk; if not, the log says why.
    """
    try:
        body = dump(state)
        path = folder / NAME.format(epoch=epoch, step=step)
        part = folder / f".{path.name}.part"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(hashlib.sha256(body).hexdigest().encode() + b"\n")
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(folder)
        for old in _newest_first(folder)[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning(
            "the checkpoint cannot be written (%s): training continues and the previous one is kept; free disk space, "
            "or point SM_CHECKPOINT_DIR elsewhere",
            error.strerror,
        )
        return False
    return True


def read_newest(folder: Path) -> dict[str, Any] | None:
    """The newest intact checkpoint, or None; damaged ones and leftovers of interrupted writes are removed."""
    for leftover in folder.glob(_UNFINISHED):
        leftover.unlink(missing_ok=True)
    for path in _newest_first(folder):
        state = _read(path)
        if state is not None:
            return state
        logger.warning("checkpoint %s is damaged: using the previous one, if there is one", path.stem)
        path.unlink(missing_ok=True)
    return None


def dump(state: dict[str, Any]) -> bytes:
    """Serialize a state."""
    body = io.BytesIO()  # torch's own file writer reports a full disk as an internal error
    torch.save(state, body)
    return body.getvalue()


def load(body: bytes) -> dict[str, Any]:
    """Read the bytes of `dump` without running any code in them. Tensors come to the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return state


def _read(path: Path) -> dict[str, Any] | None:
    """One checkpoint; None unless `write_checkpoint` wrote exactly this."""
    content = path.read_bytes()
    digest, body = content[:_DIGEST_LENGTH], content[_DIGEST_LENGTH + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    try:
        return load(body)
    except pickle.UnpicklingError:  # torch raises it for a file that would run code
        return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN), key=lambda path: path.name, reverse=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
