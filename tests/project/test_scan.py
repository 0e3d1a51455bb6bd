"""`make scan`: pip-audit itself is real where its call matters, and asks an advisory service made here."""

import datetime
import json
from pathlib import Path

import pytest

from develop import scan

TODAY = datetime.date(2026, 11, 24)
OPEN, OVER = datetime.date(2027, 1, 31), datetime.date(2026, 11, 23)
# Prints the bill of materials, or the updates of the image's package manager.
DOCKER = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
  *" --entrypoint cat "*) exec cat "$here/bill" ;;
  *) echo "$*" >> "$here/asked"; cat "$here/updates" 2>/dev/null || { echo "no network" >&2; exit 1; } ;;
esac
"""


def package(name, *findings, version="1.0"):
    return {"name": name, "version": version, "vulns": list(findings)}


def finding(number, *aliases, fixed=("1.1",)):
    return {"id": number, "aliases": list(aliases), "fix_versions": list(fixed), "description": "long"}


def exception(number, name="a", until=OPEN):
    return {"id": number, "package": name, "reason": "not reachable", "until": until}


def test_a_vulnerability_is_named_with_all_its_numbers_and_its_remedy():
    report = [package("a", finding("PYSEC-1", "CVE-1")), package("b", finding("GHSA-2", fixed=())), package("c")]

    verdict = scan.judge(report, [], TODAY)

    assert verdict.found == ["a 1.0 PYSEC-1, CVE-1: fixed in 1.1", "b 1.0 GHSA-2: no fix yet"]


@pytest.mark.parametrize("number", ["PYSEC-1", "CVE-1"])
def test_an_exception_by_any_of_its_numbers_accepts_it(number):
    verdict = scan.judge([package("a", finding("PYSEC-1", "CVE-1"))], [exception(number)], TODAY)

    assert verdict == scan.Verdict(accepted=["a 1.0 PYSEC-1 until 2027-01-31: not reachable"])


def test_an_exception_is_of_one_package():
    verdict = scan.judge([package("b", finding("CVE-1"))], [exception("CVE-1", "a")], TODAY)

    assert verdict.found == ["b 1.0 CVE-1: fixed in 1.1"]
    assert verdict.unused == ["a CVE-1 until 2027-01-31"]


def test_an_exception_holds_on_its_last_day_and_fails_after_it():
    report = [package("a", finding("CVE-1"))]

    assert scan.judge(report, [exception("CVE-1", until=TODAY)], TODAY).found == []
    verdict = scan.judge(report, [exception("CVE-1", until=OVER)], TODAY)
    assert verdict.found == ["a 1.0 CVE-1: fixed in 1.1"]
    assert verdict.expired == ["a CVE-1 until 2026-11-23"]


def test_a_package_that_the_service_does_not_know_is_not_called_clean():
    report = [{"name": "a", "skip_reason": "not found"}, {"name": "b", "skip_reason": "not found"}]

    verdict = scan.judge(report, [exception("unlisted", "b")], TODAY)

    assert verdict.unlisted == ["a"]
    assert verdict.accepted == ["b  unlisted until 2027-01-31: not reachable"]


def test_the_exceptions_of_the_repository_can_be_read():
    assert isinstance(scan.read_exceptions(scan.ROOT / "docker" / "vulnerabilities.toml", datetime.date.today()), list)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[exception]]\nid = "CVE-1"\npackage = "a"\nuntil = 2027-01-31', "needs id, package, reason and until"),
        ('[[exception]]\nid = "1"\npackage = "a"\nreason = "b"\nuntil = "soon"', "until = YYYY-MM-DD"),
        ('[[exception]]\nid = "1"\npackage = "a"\nreason = "b"\nuntil = 2027-12-31', "at most half a year ahead"),
        ("[[exception", "cannot be read"),
    ],
)
def test_an_exception_says_why_and_how_long(tmp_path, text, message):
    (tmp_path / "e.toml").write_text(text)

    with pytest.raises(scan.ScanError, match=message):
        scan.read_exceptions(tmp_path / "e.toml", TODAY)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """A function that sets the image's packages and the output of its package manager."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def describe(updates="", **packages):
        parts = [{"type": "library", "name": name, "version": version} for name, version in packages.items()]
        parts.append({"type": "platform", "name": "cpython", "version": "3.11.2"})
        (tmp_path / "bill").write_text(json.dumps({"components": parts}))
        if updates is not None:
            (tmp_path / "updates").write_text(updates)
        return tmp_path

    return describe


@pytest.fixture
def audited(monkeypatch):
    """A function that sets the report of pip-audit, which takes most of a second to run."""
    return lambda *report: monkeypatch.setattr(scan, "audit", lambda packages, url: list(report))


def test_what_is_found_fails_and_what_was_not_seen_is_said(image, advisories, capfd):
    image(pillow="11.0", torch="2.13.0+cpu")

    assert scan.main(["--image", "some:tag", "--osv-url", advisories.url]) == 1

    printed = capfd.readouterr().out
    assert "VULNERABLE:\n  pillow 11.0 PYSEC-2026-1, CVE-2026-1: fixed in 12.0\n" in printed
    assert "not looked at:" in printed
    assert sorted(advisories.asked) == [("pillow", "11.0"), ("torch", "2.13.0")]  # the published version


def test_nothing_found_is_said_and_succeeds(image, advisories, capfd):
    folder = image("Inst libssl3 [3.0.1] (3.0.2 Debian-Security:12/stable-security)\n", pillow="13.0")

    assert scan.main(["--image", "some:tag", "--osv-url", advisories.url]) == 0

    printed = capfd.readouterr().out
    assert "no known vulnerability in the Python packages" in printed
    assert "a newer base would bring: 1\n  Inst libssl3 " in printed
    assert "--network bridge --entrypoint sh some:tag -c" in (folder / "asked").read_text()


def test_an_accepted_one_succeeds_and_is_shown(image, audited, capfd, tmp_path):
    image(pillow="11.0")
    audited(package("pillow", finding("PYSEC-2026-1", "CVE-2026-1"), version="11.0"))
    until = datetime.date.today() + datetime.timedelta(days=30)
    entry = f'[[exception]]\nid = "CVE-2026-1"\npackage = "pillow"\nreason = "why"\nuntil = {until}\n'
    (tmp_path / "e.toml").write_text(entry)

    assert scan.main(["--image", "some:tag", "--exceptions", str(tmp_path / "e.toml")]) == 0

    assert f"accepted:\n  pillow 11.0 PYSEC-2026-1 until {until}: why\n" in capfd.readouterr().out


def test_an_expired_exception_fails_even_when_nothing_is_found(image, audited, tmp_path):
    image(pillow="13.0")
    audited(package("pillow"))
    (tmp_path / "e.toml").write_text('[[exception]]\nid = "1"\npackage = "a"\nreason = "b"\nuntil = 2020-01-31\n')

    assert scan.main(["--image", "some:tag", "--exceptions", str(tmp_path / "e.toml")]) == 1


def test_a_service_that_does_not_answer_is_not_a_clean_image(image, capfd):
    image(pillow="13.0")

    assert scan.main(["--image", "some:tag", "--osv-url", "http://127.0.0.1:1/v1/query"]) == 3

    printed = capfd.readouterr()
    assert "nothing was scanned" in printed.err
    assert "no known vulnerability" not in printed.out


def test_a_base_that_cannot_be_asked_is_said(image, audited, capfd):
    image(updates=None, pillow="13.0")
    audited(package("pillow"))

    assert scan.main(["--image", "some:tag"]) == 0

    assert "could not be asked for security updates (no network)" in capfd.readouterr().out


def test_an_image_that_is_not_there_is_one_line(image, capfd):
    (image() / "bill").unlink()

    assert scan.main(["--image", "some:tag"]) == 2

    [error] = capfd.readouterr().err.splitlines()
    assert "the image some:tag shows no bill of materials" in error


def test_a_machine_without_docker_is_told_so(tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert scan.main(["--image", "some:tag"]) == 2

    assert "Docker is not installed" in capfd.readouterr().err
