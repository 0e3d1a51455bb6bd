"""The networks: their table, those that MONAI lacks, weights to start from."""
