"""Faults of an artifact on disk."""

import shutil


def change_a_weight(folder):
    path = folder / "models" / "model.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
