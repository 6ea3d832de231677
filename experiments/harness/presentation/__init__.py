"""Cells, resuming, tables, figures: what stores and prints numbers, and can change none."""
