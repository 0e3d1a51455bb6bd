"""DICOM files: parsed within limits, decoded, turned into modality values, sorted into series with their geometry."""
