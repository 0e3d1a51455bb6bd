"""The commands of the image, and what else a process of its own begins with: arguments, environment, exit codes."""
