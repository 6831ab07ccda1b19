"""The query language: text to a small syntax tree, the tree to SQL."""
