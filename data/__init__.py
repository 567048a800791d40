"""Answers: predictions meet submission templates and truth."""
