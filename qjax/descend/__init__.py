"""Gradient descent: the one jitted optax loop, its host side, its checkpoints."""
