"""The layers of the package: imports point downward, and only the outer layer knows SageMaker and the environment."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "container_src" / "sagemaker_monai"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own layer's modules and from those below; the first part of the name decides.
LAYERS = [
    {"entrypoints", "prepare", "serving", "doctor"},
    {"training", "steps", "predictor", "deidentification"},
    {"loading", "kinds"},
    {
        *("datasets", "dataset_json", "entries", "layouts", "table_layout", "class_folders"),
        *("labelled", "label_values", "label_readers", "label_options", "label_rules"),
        *("trainable",),
        *("masks", "shards", "unpacking", "cache", "cache_keys", "bundle"),
    },
    {
        *(
            "transforms",
            "photographs",
            "deep_pictures",
            "visibility",
            "medical",
            "presets",
            "intensity",
            "normalization",
            "resampling",
        ),
        *("augmentation", "grey_augmentation", "networks", "segresnet", "pretrained"),
        *("choices", "optimizers", "tasks", "checkpoints", "distributed"),
    },
    {"images", "reading", "volume_files", "structured_reports", "evidence"},
    {
        *(
            "dicom",
            "formats",
            "containers",
            "contents",
            "heaps",
            "multipart",
            "pictures",
            "picture_parts",
            "deep_values",
            "volumes",
            "samples",
        ),
        *("archives", "tars", "splitting", "tables", "spreadsheets", "spreadsheet_parts", "name_matching"),
        *("columns", "groups", "measurements", "label_names", "scope"),
    },
    {"budget", "config", "digests", "errors", "files", "item_names", "log_metrics", "names", "progress", "remarks"},
]
OUTER = {"entrypoints"}
SAGEMAKER = {"boto3", "botocore", "mms", "sagemaker_inference", "sagemaker_training"}


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def layer_of(part: str) -> int:
    [layer] = [index for index, parts in enumerate(LAYERS) if part in parts]
    return layer


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    own = {name.split(".")[1] for name in imported_modules(path) if name.startswith("sagemaker_monai.")}
    parts = {part for part in own if part != "__version__"}

    assert [part for part in parts if layer_of(part) < layer_of(part_of(path))] == []


def test_training_and_predictor_meet_only_in_the_bundle():
    assert not {"sagemaker_monai.artifact.predictor"} & imported_modules(PACKAGE / "training.py")
    assert not {"sagemaker_monai.training.fit"} & imported_modules(PACKAGE / "predictor.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_entrypoints_know_sagemaker_and_the_environment(path):
    if part_of(path) in OUTER:
        return
    packages = {name.split(".")[0] for name in imported_modules(path)}

    assert not packages & SAGEMAKER
    assert "os.environ" not in path.read_text()


@pytest.mark.parametrize("call", ["eval(", "exec(", "pickle.load", "weights_only=False", "allow_pickle=True"])
def test_nothing_that_runs_data_as_code_is_called(call):
    files = [*MODULES, *(ROOT / "scripts").glob("*.py")]
    assert [path.name for path in files if f" {call}" in path.read_text() or f"({call}" in path.read_text()] == []


def test_plain_make_lists_every_target():
    targets = [
        line.split(":")[0]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line[:1].islower() and ":" in line and "?=" not in line
    ]

    listed = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout

    assert targets
    for target in targets:
        assert f"\n  {target} " in f"\n{listed}"


def test_ci_runs_every_test_once():
    recipes = dict(re.findall(r"^(test[a-z-]*):.*\n\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"^(?:[A-Z_0-9]+=\S+ )*make (test\S*)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)

    assert recipes["test"] == '$(PYTEST) -m "not long and not attacks"'
    assert recipes["test-long"] == "$(PYTEST) -m long"
    assert sorted(called) == ["test", "test-image", "test-long"]
