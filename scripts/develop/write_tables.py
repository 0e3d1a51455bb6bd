"""Write the generated tables of the documents (`make docs`); a test compares them with the code."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from develop.format_tables import (
    discriminator_table,
    finding_table,
    limit_table,
    mask_finding_table,
    modality_lut_table,
    transfer_syntax_table,
    volume_format_table,
)
from develop.markdown import code, table, with_blocks
from develop.medical_tables import answer_blocks, network_table, preset_table, task_table, window_table
from sagemaker_monai import errors
from sagemaker_monai.errors import INTERNAL_ERROR, CallerError, ConfigError, DatasetError, TrainingStopped
from sagemaker_monai.hyperparameters import hyperparameter_table
from sagemaker_monai.prepare.sources import SOURCES
from sagemaker_monai.requests.media_types import MEDIA_TYPES
from sagemaker_monai.sagemaker.dicomweb_access import VARIABLES as DICOMWEB_VARIABLES
from sagemaker_monai.serving.inference import ANSWER_TYPES
from sagemaker_monai.serving.settings import VARIABLES

TRAINING_ERRORS = (ConfigError, DatasetError, TrainingStopped)  # end a job or a start; never the answer to a request
ROOT = Path(__file__).resolve().parent.parent.parent


def error_table() -> str:
    """Code, status and meaning of every refusal."""
    rows = [
        [f"`{kind.__name__}`", "-" if kind in TRAINING_ERRORS else str(kind.status), (kind.__doc__ or "").strip()]
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CallerError) and kind is not CallerError
    ]
    rows.append([f"`{INTERNAL_ERROR}`", "500", "A fault of the server; the log has the details."])
    return table(["code", "HTTP", "meaning"], rows)


def content_type_table() -> str:
    """The content types of requests, and of answers."""
    rows = [[f"`{name}`", code(*row.suffixes)] for name, row in MEDIA_TYPES.items()]
    return table(["Content-Type", "files"], rows) + f"\n\nAccept: {code(*ANSWER_TYPES)}."


def _variables(rows: Mapping[str, str]) -> str:
    return table(["variable", "meaning"], [[f"`{name}`", meaning] for name, meaning in rows.items()])


DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/reference.md": {
        "hyperparameters": hyperparameter_table,
        "networks": network_table,
        "content types": content_type_table,
        "errors": error_table,
        "environment of serve": lambda: _variables(VARIABLES),
    },
    "docs/data.md": {
        "sources": lambda: table(["source", "what"], [[f"`{name}`", row.help] for name, row in SOURCES.items()]),
        "environment of prepare": lambda: _variables(DICOMWEB_VARIABLES),
    },
    "docs/formats.md": {
        "transfer syntaxes": transfer_syntax_table,
        "volume formats": volume_format_table,
        "discriminators": discriminator_table,
        "modality luts": modality_lut_table,
        "findings": finding_table,
        "findings of masks": mask_finding_table,
        "limits": limit_table,
    },
    "docs/medical.md": {
        "presets": preset_table,
        "windows": window_table,
        "tasks": task_table,
        "answers": answer_blocks,
    },
}


def main() -> int:
    """Update the documents in place."""
    for name, blocks in DOCUMENTS.items():
        path = ROOT / name
        path.write_text(with_blocks(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
