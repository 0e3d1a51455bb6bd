"""Models of AWS's services, read once: to read one takes longer than most of what tests ask of the service."""

from contextlib import contextmanager
from functools import cache

import pytest
from botocore.loaders import create_loader


@cache
def loader():
    """botocore's reader of models, with what it has read."""
    return create_loader()


@contextmanager
def shared_models():
    """All sessions of botocore that begin meanwhile share what any of them has read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda *_: loader())
        yield
