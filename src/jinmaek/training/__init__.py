"""Fine-tuning itself: data, model, optimizer, the step, the loop and its checkpoints.

Knows no detector, no store and no report: whoever wants to watch passes a :class:`~jinmaek.training.loop.Listener`.
"""
