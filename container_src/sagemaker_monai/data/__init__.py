"""From folders and tables that people have to records of image, label and group in three splits.

Downloads and formats of other programs are for `prepare`; decoding is for `images`.
"""
