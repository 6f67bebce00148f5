"""Masked-diffusion language models as an engine of our own."""
