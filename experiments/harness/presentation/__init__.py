"""Cells, resuming, tables, figures: everything that stores and prints numbers and can change none of them."""
