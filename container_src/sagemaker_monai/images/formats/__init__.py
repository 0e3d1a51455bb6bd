"""Volume files other than DICOM, one module per format; `volume_files` has the table of formats."""
