"""Uploads of data sets: what may leave, what is cleaned, what S3 has already."""
