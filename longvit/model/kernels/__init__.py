"""Kernels that compute the attention of one branch, and the choice of a kernel."""
