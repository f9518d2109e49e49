"""Refinement: all weights of a compressed model together, by gradients, towards the dense network's activations."""
