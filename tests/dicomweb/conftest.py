import pytest

from sagemaker_monai.dicomweb import transport


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Retries follow without delay."""
    monkeypatch.setattr(transport, "FIRST_DELAY_S", 0.01)
