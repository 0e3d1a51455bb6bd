"""What the README says is what the code does."""

from pathlib import Path

import pytest

from scripts.write_tables import TABLES, with_tables

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code():
    assert with_tables(README) == README  # otherwise: make docs


def test_a_stale_table_would_be_noticed():
    name = next(iter(TABLES))
    stale = README.replace(f"<!-- table: {name} -->\n", f"<!-- table: {name} -->\n| old |\n")

    assert stale != README
    assert with_tables(stale) == README


def test_a_missing_mark_is_an_error():
    with pytest.raises(ValueError, match="marks of table"):
        with_tables("")


def test_the_readme_opens_with_the_two_commands():
    commands = [line for line in README.splitlines() if line.startswith("$ make")]
    assert commands[:2] == ["$ make demo", "$ make test"]
