"""A raw file becomes rows and pixels."""
