"""Readers of what other writers put on disk: a module for each format, nothing of ours and nothing of documents."""
