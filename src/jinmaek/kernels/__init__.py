"""The training step's fast path: frozen 4-bit linear layers with LoRA, on one GPU, in Triton and cuBLAS.

Nothing here knows recipes, data or records; :mod:`jinmaek.training` decides whether to use it.
"""
