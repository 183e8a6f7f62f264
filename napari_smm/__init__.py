"""The workbench in napari: train on your own images and watch the model learn. Importing it costs nothing."""
