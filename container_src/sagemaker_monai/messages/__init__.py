"""Texts for people: findings with a code, progress, how many names are shown, names masked, and options with help."""
