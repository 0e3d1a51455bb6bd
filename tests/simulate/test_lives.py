"""`make simulate-...`: the lives are made of commands that there are, and one is lived."""

import pytest

from simulate import __main__ as simulate
from simulate.lives import LIVES
from tests.aws.test_commands import TARGETS
from tests.image.conftest import draw

pytestmark = pytest.mark.usefixtures("cloud")  # which empties moto: the simulation and it are one process here


def test_every_life_is_a_target():
    assert {f"simulate-{name}" for name in LIVES} == {name for name in TARGETS if name.startswith("simulate-")}


@pytest.mark.long
def test_a_life_runs_the_real_commands_to_its_end(tmp_path, capfd):
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        draw(tmp_path / "data" / split, per_class=count, seed=count)
    words = ["--data", str(tmp_path / "data"), "--folder", str(tmp_path / "folder")]
    words += ["--hyperparameters", "epochs=1", "batch_size=4", "num_workers=1"]

    assert simulate.main(["train", *words]) == 0

    printed = capfd.readouterr()
    assert '"balanced_accuracy"' in printed.out
    assert "simulate-train: everything worked" in printed.out
    assert "found" not in printed.err  # an account that was used before would have the job


def test_a_step_that_fails_ends_the_life_and_is_named(tmp_path, capfd):
    (tmp_path / "data").mkdir()

    assert simulate.main(["train", "--data", str(tmp_path / "data"), "--folder", str(tmp_path / "folder")]) == 2

    assert "sagemaker-monai prepare-s3 ended with 2" in capfd.readouterr().err


@pytest.mark.parametrize("words", [["nothing"], []])
def test_an_unknown_life_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        simulate.main(words)

    assert "usage: simulate" in capsys.readouterr().err
