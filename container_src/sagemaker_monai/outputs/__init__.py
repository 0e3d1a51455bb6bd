"""Writes predictions as bodies: JSON, JSON lines, CSV, DICOM structured reports."""
