"""A trained run as files that other programs read, and a data set as nnU-Net has it.

What is written here is checked against the run itself before it gets its name. The optional packages (onnx,
onnxruntime, bioimageio) are imported in this room alone, where they are needed.
"""
