"""From an image to the network's input, described by data in the artifact that one function builds everywhere.

The load half runs once per image and its result can be stored; the scale half runs on the device. Random changes for
training are in `training`.
"""
