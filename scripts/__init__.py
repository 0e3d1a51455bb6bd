"""What a person runs; nothing here is part of the installed package."""
