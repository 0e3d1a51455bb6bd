"""Paths of the repository and of the real data sets that some tests read."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = (ROOT / os.environ.get("SHARED_DATA", "../shared/data")).resolve()
