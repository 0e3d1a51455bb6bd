"""A data set on its way to S3: what may leave, what is cleaned, what is there already."""
