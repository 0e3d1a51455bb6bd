"""From an image to the network's input, as data that the artifact carries and one function builds everywhere.

The load half is done once an image and can be stored; the scale half runs on the device. Random changes for training
are in `training`.
"""
