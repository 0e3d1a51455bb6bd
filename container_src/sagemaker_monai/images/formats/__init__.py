"""Files of volumes other than DICOM, one module a format; the table of them is in `volume_files`."""
