"""Inference: many runs call a model, one device computes them together.

    call  ->  queue of the model  ->  batcher of the device  ->  backend

The only room that imports a device library, and only when the first model is needed.
"""
