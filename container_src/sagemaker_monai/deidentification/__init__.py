"""De-identification: the one place that knows what identifies a person, and removes it from files.

It contains the list of what identifies a person, the rules for each kind of file (DICOM objects, pictures, volumes),
the keyed replacements, and the proof that a result contains nothing from the original, for `prepare`, `doctor` and the
command `prepare-s3`. Layouts of data sets, copying and printing belong elsewhere.
"""
