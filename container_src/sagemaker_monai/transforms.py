"""The names under which artifacts know the preprocessing: `preprocessing` has the classes themselves."""

from sagemaker_monai.preprocessing.deep_pictures import LoadDeepPicture
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume, NormalizeIntensity
from sagemaker_monai.preprocessing.photograph import LoadPhotograph, NormalizePhotograph

__all__ = [
    "LoadDeepPicture",
    "LoadPhotograph",
    "LoadSlice",
    "LoadVolume",
    "NormalizeIntensity",
    "NormalizePhotograph",
]
