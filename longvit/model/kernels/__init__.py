"""Kernels that compute the attention of one branch, and the choice among them."""
