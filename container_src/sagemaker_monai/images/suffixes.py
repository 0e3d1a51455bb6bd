"""Usual suffixes of image files; the content decides what a file is."""

PICTURE_SUFFIXES = {  # by Pillow's name of the format
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in PICTURE_SUFFIXES.values() for suffix in suffixes)
# In data sets, beside pictures. DICOM files often have no ending at all.
VOLUME_SUFFIXES = frozenset(
    {".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".npy", ".npz", ".img", ".img.gz", ".hdr", ".hdr.gz"}
)
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ""})
