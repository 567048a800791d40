"""A tensor becomes numbers."""
