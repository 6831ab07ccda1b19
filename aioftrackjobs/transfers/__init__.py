"""Uploads and downloads of files: see upload, multipart and download."""
