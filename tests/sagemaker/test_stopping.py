import os
import signal
import threading
from types import SimpleNamespace

import pytest

from sagemaker_monai.data.datasets import Record
from sagemaker_monai.errors import TrainingStopped
from sagemaker_monai.evaluation.scoring import score_files
from sagemaker_monai.sagemaker.stopping import stop_on_signal
from sagemaker_monai.training.job import SCORING_WHEN_STOPPED_S, _time_limit


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_and_said_once_and_afterwards_all_is_as_before(number, capfd):
    before = signal.getsignal(number)

    with stop_on_signal() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), number)
        assert stopping.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)

    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert capfd.readouterr().err == f"{number.name}: stopping after this step, saving what there is ...\n"


def test_a_second_ctrl_c_ends_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    try:
        with stop_on_signal() as stopping:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopping.wait(10)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_there_are_no_signals_to_hear():
    heard = []

    def work():
        with stop_on_signal() as stopping:
            heard.append(stopping.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert heard == [False]


def test_scoring_has_a_minute_once_the_job_is_asked_to_stop(monkeypatch):
    now = 1000.0
    is_asked = False
    monkeypatch.setattr("sagemaker_monai.training.job.time.monotonic", lambda: now)
    is_over = _time_limit(lambda: is_asked)

    now += 10 * SCORING_WHEN_STOPPED_S
    assert not is_over()
    is_asked = True
    assert not is_over()
    now += SCORING_WHEN_STOPPED_S
    assert not is_over()
    now += 1
    assert is_over()


def test_scoring_asks_before_every_file_whether_it_shall_stop():
    records = [Record(None, "x.png", 0, "g", {})]

    predictor = SimpleNamespace(bundle=SimpleNamespace(preprocessing=SimpleNamespace(size=(64, 64))))

    with pytest.raises(TrainingStopped, match=r"^scoring the test split was interrupted, because "):
        score_files(predictor, records, what="scoring the test split", is_stopping=lambda: True)
