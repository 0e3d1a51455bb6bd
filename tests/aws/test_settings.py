"""config.env: a flag wins over it, it over the defaults; what is wrong in it is told by its line or name."""

import argparse
from pathlib import Path

import pytest

from sagemaker_monai_aws.core import settings
from sagemaker_monai_aws.core.errors import CommandError


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Parse a command line of `train` with a config.env of some text."""
    monkeypatch.delenv("CONFIG_ENV", raising=False)
    monkeypatch.chdir(tmp_path)

    def parsed(text, *argv):
        Path("config.env").write_text(text)
        parser = argparse.ArgumentParser(prog="train")
        parser.add_argument("--count", type=int, default=1)
        parser.add_argument("--mode", choices=("a", "b"), default="a")
        parser.add_argument("--spot", action=argparse.BooleanOptionalAction, default=True)
        parser.add_argument("--again", action="store_true")
        parser.add_argument("--words", nargs="*", default=[])
        settings.add_common(parser)
        return settings.parse(parser, list(argv), ("train", "deploy", "prepare-s3"))

    return parsed


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(parse):
    assert parse("").count == 1
    assert parse("TRAIN_COUNT=2").count == 2
    assert parse("TRAIN_COUNT=2", "--count", "3").count == 3


def test_what_all_commands_share_has_no_prefix(parse):
    options = parse('REGION=eu-west-1\nexport BUCKET="some-bucket"  # ours\n\n# comment\nSUBNETS=subnet-1,subnet-2')

    assert (options.region, options.bucket, options.subnets) == ("eu-west-1", "some-bucket", ["subnet-1", "subnet-2"])
    assert parse("TAGS='team=skin,cost=12'").tags == {"team": "skin", "cost": "12"}


def test_booleans_and_lists_are_read(parse):
    options = parse("TRAIN_SPOT=no\nTRAIN_AGAIN=TRUE\nTRAIN_WORDS=\"a=1 b='x y'\"")

    assert (options.spot, options.again, options.words) == (False, True, ["a=1", "b=x y"])


def test_settings_of_other_commands_stand_in_the_same_file(parse):
    assert parse("DEPLOY_COUNT=5\nPREPARE_S3_PARALLEL=4").count == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN_CUONT=2", "nothing reads TRAIN_CUONT, did you mean TRAIN_COUNT?"),
        ("REGOIN=x", "nothing reads REGOIN, did you mean REGION?"),
        ("COUNT=2", "nothing reads COUNT"),
        ("TRAIN_COUNT=two", "TRAIN_COUNT: invalid literal"),
        ("TRAIN_MODE=c", "TRAIN_MODE is one of a, b, got 'c'"),
        ("TRAIN_SPOT=perhaps", "TRAIN_SPOT is true or false, got 'perhaps'"),
        ("PROJECT=A_b", "PROJECT: takes 3 to 32 lower-case letters"),
        ("TAGS=team", "TAGS: takes NAME=VALUE"),
        ("REGION=a\nREGION=b", "line 2: REGION is given twice"),
        ("just words", "line 1: write NAME=value"),
        ("BUCKET=a b", "line 1: write NAME=value, with quotes"),
        ('BUCKET="a', "line 1: No closing quotation: close the quote"),
        ("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY looks like a secret"),
        ("TRAIN_TOKEN=hf_x", "TRAIN_TOKEN looks like a secret"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(parse, text, message):
    with pytest.raises(CommandError) as raised:
        parse(text)

    assert message in str(raised.value)
    assert "hf_x" not in str(raised.value)


def test_another_file_is_taken_when_named_and_must_be_there(parse, tmp_path, monkeypatch):
    (tmp_path / "other.env").write_text("TRAIN_COUNT=7")

    assert parse("TRAIN_COUNT=2", "--config", "other.env").count == 7
    with pytest.raises(CommandError, match=r"there is no file gone\.env"):
        parse("", "--config", "gone.env")
    monkeypatch.setenv("CONFIG_ENV", "other.env")
    assert parse("TRAIN_COUNT=2").count == 7
