"""The examination of a data set: what it holds, what cannot be used, what leaks, and what may identify patients."""
