"""The parts of a streamed prediction: its arrays, how far it is, and ranges of it on several machines."""
