"""The importer of SageMaker Ground Truth's output: its jobs, annotators, groups and report."""
