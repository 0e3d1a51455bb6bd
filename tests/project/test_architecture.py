"""The wings of the package: imports point downward, and only the outer ones know SageMaker and the environment."""

import ast
import re
import subprocess
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from sagemaker_inference import content_types, parameters

from sagemaker_monai.tasks.tasks import TASKS
from tests.support.places import ROOT

PACKAGE = ROOT / "container_src" / "sagemaker_monai"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The names that artifacts and users' scripts import; the code itself lies in the wings.
FACADES = {"transforms", "segresnet", "log_metrics"}
OUTER = {"entrypoints", "sagemaker"}
DEMONSTRATIONS = {
    "demo_segmentation.py",
    "demo_volume.py",
    "draw_volumes.py",
    "real_runs.py",
}  # each uses a data set of one task
SAGEMAKER = {"boto3", "botocore", "mms", "sagemaker_inference", "sagemaker_training"}
# Constants of the contract with SageMaker: any wing may import them, none repeats their values.
CONTRACT = (content_types, parameters)


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imported_modules(path: Path) -> frozenset[str]:
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def wings() -> dict[str, set[str]]:
    """The table of docs/architecture.md: from a wing to those that it may import from."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|([^|]*)\|$", text, re.MULTILINE)
    names = {name for name, _ in rows}
    return {name: names if "everything" in cells else set(re.findall(r"`(\w+)`", cells)) for name, cells in rows}


WINGS = wings()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def own_imports(path: Path) -> set[str]:
    return {name for name in imported_modules(path) if name.startswith("sagemaker_monai.")}


def test_the_table_has_every_wing_and_is_in_the_order_of_imports():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} - FACADES

    assert set(WINGS) == rooms | files
    for position, (name, allowed) in enumerate(WINGS.items()):
        assert allowed - {name} <= set(list(WINGS)[:position])


def test_a_module_imports_from_its_wing_and_those_of_its_row():
    wrong = {}
    for path in MODULES:
        wing = part_of(path)
        if wing not in FACADES | {"__init__"}:
            parts = {name.split(".")[1] for name in own_imports(path)} - {"__version__"}
            wrong[str(path.relative_to(PACKAGE))] = parts - WINGS[wing] - {wing}

    assert {path: parts for path, parts in wrong.items() if parts} == {}


def test_nothing_in_the_package_uses_a_facade():
    assert [path.name for path in MODULES for name in own_imports(path) if name.split(".")[1] in FACADES] == []


def test_what_differs_by_task_stands_in_its_row():
    """Only the modules of the tasks name one, MedMNIST's table, and the words that name files and columns of masks."""
    words = ("medmnist_sets.py", "mask_files.py", "columns.py")
    others = [path for path in MODULES if part_of(path) != "tasks" and path.name not in words]
    named = [
        (path.name, node.lineno)
        for path in [*others, *(ROOT / "scripts").rglob("*.py")]
        if path.name not in DEMONSTRATIONS
        for node in nodes(path)
        if isinstance(node, ast.Constant) and node.value in set(TASKS)
    ]

    assert named == []


def test_no_modules_import_each_other_in_a_circle():
    names = {module_name(path): path for path in MODULES}
    arrows = {name: own_imports(path) & set(names) for name, path in names.items()}

    assert list(TopologicalSorter(arrows).static_order())  # raises CycleError


def test_a_modules_name_occurs_once():
    names = Counter(path.stem for path in MODULES if path.stem != "__init__" and part_of(path) != "entrypoints")

    assert [name for name, count in names.items() if count > 1] == []


def test_a_wings_first_lines_say_what_belongs_in_it():
    wings = [path for path in MODULES if path.name == "__init__.py"]

    assert [module_name(path) for path in wings if len(ast.get_docstring(nodes(path)[0]) or "") <= 40] == []


def test_only_the_outer_wings_know_sagemaker_and_the_environment():
    words = {module.__name__ for module in CONTRACT} | {"sagemaker_inference"}
    inner = [path for path in MODULES if part_of(path) not in OUTER]

    importing = [p.name for p in inner if {name.split(".")[0] for name in imported_modules(p) - words} & SAGEMAKER]
    assert importing == []
    assert [path.name for path in inner if "os.environ" in path.read_text()] == []


def test_no_word_of_sagemaker_inference_is_typed_again():
    words = {
        value
        for module in CONTRACT
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    typed = [
        (path.name, node.lineno)
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.Constant) and node.value in words
    ]

    assert typed == []


@pytest.mark.parametrize("call", ["eval(", "exec(", "pickle.load", "weights_only=False", "allow_pickle=True"])
def test_nothing_that_runs_data_as_code_is_called(call):
    files = [*MODULES, *(ROOT / "scripts").rglob("*.py")]
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
