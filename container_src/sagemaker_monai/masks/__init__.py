"""Masks for segmentation: from a file next to an image to a whole number for each of the image's voxels.

`read_mask.read_mask` is the way in. What is no mask of its image beyond doubt is refused, with cause and remedy; what
was read in one of several ways is said in a finding. What the numbers are to a network is for others.
"""
