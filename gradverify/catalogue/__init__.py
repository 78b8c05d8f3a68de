"""Ops to copy: every file stands alone and imports torch only."""
