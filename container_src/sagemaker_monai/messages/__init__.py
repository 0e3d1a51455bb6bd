"""Texts for people: coded findings, progress, shortened lists of names, masking of names, and options with help."""
