"""Names and tasks of the MedMNIST v2 sets, as their authors publish them.

Source: MedMNIST/MedMNIST, medmnist/info.py (J. Yang et al., Scientific Data 10, 41, 2023).
"""

import re
from dataclasses import dataclass

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip


@dataclass(frozen=True)
class MedMnistSet:
    """A set: its classes in the order of their numbers, and its task."""

    classes: tuple[str, ...]
    task: str = "classification"


SETS = {
    "pathmnist": MedMnistSet((
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    )),
    "chestmnist": MedMnistSet((
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
        "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ), "multilabel"),
    "dermamnist": MedMnistSet((
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
        "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
    )),
    "octmnist": MedMnistSet(("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")),
    "pneumoniamnist": MedMnistSet(("normal", "pneumonia")),
    "retinamnist": MedMnistSet(("0", "1", "2", "3", "4"), "ordinal"),
    "breastmnist": MedMnistSet(("malignant", "normal, benign")),
    "bloodmnist": MedMnistSet((
        "basophil", "eosinophil", "erythroblast", "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
        "lymphocyte", "monocyte", "neutrophil", "platelet",
    )),
    "tissuemnist": MedMnistSet((
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
        "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    )),
    "organamnist": MedMnistSet(_ORGANS),
    "organcmnist": MedMnistSet(_ORGANS),
    "organsmnist": MedMnistSet(_ORGANS),
    "organmnist3d": MedMnistSet((
        "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right",
        "lung-left", "spleen", "pancreas",
    )),
    "nodulemnist3d": MedMnistSet(("benign", "malignant")),
    "adrenalmnist3d": MedMnistSet(("normal", "hyperplasia")),
    "fracturemnist3d": MedMnistSet(("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture")),
    "vesselmnist3d": MedMnistSet(("vessel", "aneurysm")),
    "synapsemnist3d": MedMnistSet(("inhibitory synapse", "excitatory synapse")),
}  # fmt: skip


def set_of(file_name: str) -> str | None:
    """The set of a file by its name (`breastmnist.npz`, `breastmnist_128.npz`); None if it is not one."""
    match = re.match(r"([a-z]+mnist(?:3d)?)(?=[^a-z0-9]|$)", file_name.lower())
    return match[1] if match and match[1] in SETS else None
