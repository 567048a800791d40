"""Synthetic eyes: their anatomy, how a scan cuts it, what the device would show, and scans to learn from.

Knows nothing of data sets: processing.demo makes one of these eyes, model.lessons teaches by these scans.
"""
