"""The exact top K of users' vectors as an ONNX graph that holds the vectors of all items.

Inputs: `users`, float32 [n, D], and `k`, int64 [1]. Outputs: `scores`, float32 [n, k], and `items`, int64 [n, k], the
numbers of rows in items.parquet.

Shape legend: n users, M items, D numbers of a vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.errors import DistGatError
from dist_gat.base.extra import need

OPSET = 17
NUM_CHECKED = 64
# above it, a file of its own has the vectors: protobuf allows 2 GB
INSIDE_BYTES = 1 << 30


def write_scoring(path: Path, items_MD: Tensor, users_nD: Tensor) -> float:
    """Write the graph, and run it by onnxruntime for some users. Returns the largest difference to torch's scores.

    Raises `DistGatError` where that is more than rounding.
    """
    onnx = need("onnx", "export of ONNX", "export")
    from onnx import TensorProto, helper, numpy_helper

    columns_DM = np.ascontiguousarray(items_MD.numpy().T)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["users", "item_vectors"], ["every_score"]),
            helper.make_node("TopK", ["every_score", "k"], ["scores", "items"], axis=1),
        ],
        "scoring",
        [
            helper.make_tensor_value_info("users", TensorProto.FLOAT, ["n", columns_DM.shape[0]]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", "k_of_a_user"]),
            helper.make_tensor_value_info("items", TensorProto.INT64, ["n", "k_of_a_user"]),
        ],
        [numpy_helper.from_array(columns_DM, "item_vectors")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="dist_gat")
    made.ir_version = 9  # what runtimes of 2023 read too
    outside = columns_DM.nbytes > INSIDE_BYTES
    onnx.save(made, path, save_as_external_data=outside, location=f"{path.name}.data")
    return _check(path, items_MD, users_nD[:NUM_CHECKED])


def _check(path: Path, items_MD: Tensor, users_nD: Tensor) -> float:
    k = min(20, len(items_MD))
    scores, items = run(path, {"users": users_nD.numpy(), "k": np.array([k])})
    own = users_nD @ items_MD.T
    expected = own.topk(k, dim=1).values
    chosen = own.gather(1, torch.from_numpy(items))
    difference = max(float((torch.from_numpy(scores) - expected).abs().max()), float((chosen - expected).abs().max()))
    require_close(path, difference, float(own.abs().max()))
    return difference


def require_close(path: Path, difference: float, largest: float) -> None:
    """Raise `DistGatError` where onnxruntime and torch differ by more than rounding."""
    if not difference <= 1e-4 * max(largest, 1.0):
        raise DistGatError(
            f"{path.name}: onnxruntime and torch differ by {difference:g}, expected rounding alone; nothing was "
            "exported"
        )


def run(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of an ONNX file."""
    runtime = need("onnxruntime", "the check of an ONNX file", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, inputs)
    return found
