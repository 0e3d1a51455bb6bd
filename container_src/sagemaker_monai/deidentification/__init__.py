"""What leaves is clean: the one place that knows what identifies a person, and takes it out of a file.

Here belong the list of what identifies a person, the rules for each kind of file (DICOM objects, pictures, volumes),
the keyed replacements, and the proof that a result holds nothing of the original. `prepare`, `doctor` and the command
`prepare-s3` ask here. What a data set looks like, which files are copied where, and what is printed is not for here.
"""
