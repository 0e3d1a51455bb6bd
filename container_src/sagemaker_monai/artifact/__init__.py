"""The model artifact: written, read and refused (`bundle`), and run on images (`predictor`)."""
