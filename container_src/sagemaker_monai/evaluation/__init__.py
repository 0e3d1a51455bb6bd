"""Scores of a predictor on labelled images, with intervals; model card and report."""
