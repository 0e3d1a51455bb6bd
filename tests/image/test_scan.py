"""The scan of the image itself, with an advisory service on loopback."""

import json

from develop import scan
from tests.image.containers import image_output


def test_every_package_of_the_image_is_looked_up(image, advisories, capfd):
    assert scan.main(["--image", image, "--osv-url", advisories.url]) == 0

    listed = json.loads(image_output("python", "-m", "pip", "list", "--format", "json"))
    expected = {package["name"].lower().replace("_", "-").replace(".", "-") for package in listed}
    assert {name for name, _ in advisories.asked} == expected - {"sagemaker-monai"}
    assert "no known vulnerability" in capfd.readouterr().out
