"""Files of components: storage on disk, signed upload addresses, parts and thumbnails."""
