"""The model artifact: written, read and refused (`bundle`), and run on images (`predictor`; `monai_run` by MONAI's
command).
"""
