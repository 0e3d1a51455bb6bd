import os
import subprocess
import sys

import pytest

from sagemaker_monai.sagemaker.environment import library_defaults


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_users_own_settings_win(name):
    assert library_defaults({"USER": "somebody", name: "1"}) == {}


def test_a_process_of_a_user_without_a_name_gets_one():
    assert library_defaults({}) == {"GOMP_SPINCOUNT": "20000", "LOGNAME": f"uid{os.getuid()}"}


NAMELESS = """
import os, pwd
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"): os.environ.pop(name, None)
"""
WITH_DEFAULTS = """
from sagemaker_monai.sagemaker.environment import library_defaults
os.environ.update(library_defaults(os.environ))
"""


@pytest.mark.long
@pytest.mark.parametrize(("program", "works"), [(NAMELESS, False), (NAMELESS + WITH_DEFAULTS, True)])
def test_monai_is_imported_by_a_user_that_does_not_exist_thanks_to_them_alone(program, works):
    command = [sys.executable, "-W", "ignore", "-c", program + "\nimport monai"]

    assert (subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0) is works
