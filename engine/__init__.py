"""Training, prediction and evaluation of segmentation networks with Supervised Mask Modulation.

The engine knows nothing of Qt or napari. It is used through its commands
(``python -m engine.train``, ``predict``, ``evaluate``) and through
:func:`engine.loop.fit`.
"""

__version__ = "0.1.0"
