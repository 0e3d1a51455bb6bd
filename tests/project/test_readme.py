"""The tables, commands and links of the README and docs/ match the code."""

import argparse
import json
import re
import shlex

import pytest

from develop.markdown import with_blocks
from develop.write_tables import DOCUMENTS
from sagemaker_monai.data.dataset_json import read_dataset_json
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.prepare.sources import SOURCES
from sagemaker_monai.requests.media_types import parse_content_type
from sagemaker_monai.serving.inference import negotiate
from tests.support.places import ROOT

TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = TEXTS["README.md"]
REFERENCE = "docs/reference.md"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_tables_are_those_of_the_code(name):
    assert with_blocks(TEXTS[name], DOCUMENTS[name]) == TEXTS[name]  # otherwise: make docs


def test_a_stale_table_would_be_noticed():
    name = next(iter(DOCUMENTS[REFERENCE]))
    text = TEXTS[REFERENCE]
    stale = text.replace(f"<!-- table: {name} -->\n", f"<!-- table: {name} -->\n| old |\n")

    assert stale != text
    assert with_blocks(stale, DOCUMENTS[REFERENCE]) == text


def test_a_missing_mark_is_an_error():
    with pytest.raises(ValueError, match="marks of table"):
        with_blocks("", DOCUMENTS[REFERENCE])


def test_the_readme_is_short_and_leads_to_every_document():
    assert len(README.splitlines()) <= 200
    assert {f"docs/{name}" for name in re.findall(r"\]\(docs/(\w+\.md)\)", README)} == set(TEXTS) - {"README.md"}


def test_the_readme_opens_with_the_two_commands():
    commands = [line for line in README.splitlines() if line.startswith("$ make")]
    assert commands[:2] == ["$ make demo", "$ make test"]


def commands(*programs):
    """The words of every line in a code block that runs one of these programs, with the name of its document."""
    found = []
    for name, text in TEXTS.items():
        for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                try:
                    words = shlex.split(line.removeprefix("$ "), comments=True)
                except ValueError:  # output of a program, or JSON
                    continue
                while words and re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
                    words = words[1:]
                if words and words[0].rpartition("/")[2] in programs and (len(words) > 1 or "make" in programs):
                    found.append(pytest.param(words[1:], id=f"{name}: {' '.join(words)[:70]}"))
    return found


@pytest.mark.parametrize("words", commands("prepare"))
def test_every_prepare_command_is_valid(words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    SOURCES[words[0]].add_options(parser)

    parser.parse_args(words[1:])


@pytest.mark.parametrize("words", commands("train"))
def test_every_train_command_has_valid_hyperparameters(words):
    pairs = " ".join(words).replace("=", " ").split()
    given = dict(zip((name.removeprefix("--").replace("-", "_") for name in pairs[::2]), pairs[1::2], strict=True))

    TrainConfig.model_validate(given, strict=False)


@pytest.mark.parametrize("words", commands("make"))
def test_every_make_command_has_targets_and_variables_of_the_makefile(words):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for word in words:
        name, equals, _ = word.partition("=")
        if equals:
            assert re.search(rf"^{name} \??:?=|\$\(call NEED,{name}\)|\({name}\)", makefile, re.MULTILINE), word
        else:
            assert re.search(rf"^{name}:", makefile, re.MULTILINE), word


@pytest.mark.parametrize("words", commands("curl"))
def test_every_curl_command_has_known_content_types(words):
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")

    if "Content-Type" in headers:
        assert parse_content_type(headers["Content-Type"])[0] in headers["Content-Type"]
    if "Accept" in headers:
        assert negotiate(headers["Accept"]) in headers["Accept"]


def test_the_dataset_json_of_the_documents_is_read(tmp_path):
    [block] = re.findall(r"^```json\n(\{\n.*?)^```", TEXTS["docs/data.md"], re.MULTILINE | re.DOTALL)
    (tmp_path / "dataset.json").write_text(block)
    (tmp_path / "series" / "00001").mkdir(parents=True)
    (tmp_path / "series" / "00001" / "1.dcm").touch()
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "2.nii.gz").touch()

    layout = read_dataset_json(tmp_path, json.loads(block))

    assert (layout.task, layout.modality, layout.spatial_dims) == ("classification", "CT", 3)
    assert [entry.label for entry in layout.entries] == ["with", {"without": 0.25, "with": 0.75}]


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.is_file(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}, target
