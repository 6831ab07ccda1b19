"""The operations of a batch, one module for each subject, and their dispatcher."""
