"""Texts for people: findings with a code, progress, how many names are shown, and names of files masked."""
