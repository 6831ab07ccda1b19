"""The query language: from text to a syntax tree, and from the tree to SQL."""
