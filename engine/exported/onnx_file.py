"""The graph as an ONNX file, and onnxruntime that runs it."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import InputError
from engine.exported.graph import INPUT, OUTPUT, Graph
from engine.exported.packages import need

OPSET = 17
"""Version of ONNX's operators: of 2022, which all runtimes in use know."""
MOST_BYTES = (1 << 31) - (1 << 20)
"""What one ONNX file can hold."""


def require() -> None:
    """Raises InputError where onnx or onnxruntime is not installed."""
    need("ONNX files", "onnx", "onnxruntime")


def write(path: Path, graph: Graph, description: Mapping[str, Any]) -> None:
    """Write an ONNX file; its metadata are the description's entries, each as JSON.

    By torch's tracing exporter. The newer one, by torch.export, gives the same graph, but takes twenty to
    sixty times as long where sizes are free: half a minute for a small U-Net.

    Raises:
        InputError: the network has more weights than an ONNX file can hold, or a package is missing.
    """
    require()
    import onnx

    size = sum(each.numel() * each.element_size() for each in graph.module.state_dict().values())
    if size > MOST_BYTES:
        raise InputError(
            f"the network's weights take {size / 1e9:.1f} GB, and an ONNX file can hold 2: "
            "--program would work."
        )
    with warnings.catch_warnings():
        # That the tracing exporter is the older one; of a fixed size, that it becomes a constant; that some
        # arithmetic of sizes stays in the file; that instance norm goes by each image, as it does here too.
        warnings.simplefilter("ignore", DeprecationWarning)
        for told in ("Constant folding - Only steps=1", "ONNX export mode is set to .*'instance_norm'"):
            warnings.filterwarnings("ignore", told, UserWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            graph.module, (graph.example,), path, dynamo=False, opset_version=OPSET, input_names=[INPUT],
            output_names=[OUTPUT], dynamic_axes={INPUT: graph.free, OUTPUT: graph.free},
        )  # fmt: skip
    model = onnx.load(path)
    model.producer_name = "napari-smm"
    for key, value in description.items():
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """What the file makes of images: (B, channels, *S) to (B, C, *S), by onnxruntime on the CPU."""
    require()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an error is raised as well
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: image.contiguous().numpy()})[0])

    return run


def runtime() -> str:
    """Name and version of what runs the file."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
