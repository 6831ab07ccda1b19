"""What a program that runs Jobs calls: a running Job, recovery of lost ones, and signals."""
