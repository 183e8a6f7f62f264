"""A data set ready to be trained on: cases, classes, channels and splits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.demo import write_demo
from engine.data.layouts import Case, Found, find
from engine.data.specs import Data
from engine.data.split import split
from engine.data.store import Sample, resized
from engine.errors import InputError
