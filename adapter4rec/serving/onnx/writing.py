"""``adapter4rec export --onnx``: a trained model as ONNX files, which need neither PyTorch nor this package.

::

    item_encoder.onnx     contents of items → embeddings; not of an id tower
    user_encoder.onnx     embeddings of clicked items → next-item vectors
    tokenizer.json        of texts, for the tokenizers library
    items.tsv             name and texts of each item of the catalogue
    item_vectors.npy      embeddings of these items, float32 ``[N, d]``
    onnx.json             inputs and outputs of both files, and how contents become inputs
    recommend.py          recommendations with onnxruntime and NumPy
    README.md             what is in the folder

Adapters that can be merged into the weights are merged; the operations of others are part of the graph.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adapter4rec.adapters.base import adapters_of
from adapter4rec.checkpoints.merging import merge_adapters, unmerge_adapters
from adapter4rec.evaluation.catalogue import evaluating
from adapter4rec.models.transrec import TransRec
from adapter4rec.serving.bundles import write_items
from adapter4rec.serving.onnx.graphs import Graph, graphs_of
from adapter4rec.serving.recommender import Recommender
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_folder, write_json
from adapter4rec.utils.versions import versions

if TYPE_CHECKING:
    from adapter4rec.serving.onnx.checking import Checked

_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
_LARGEST_FILE = 2_000_000_000
"""Bytes of weights in an ONNX file; protobuf ends at 2 GiB. More are in another file, ``NAME.data``."""


@dataclass(frozen=True)
class Exported:
    """What :func:`write_onnx` has written.

    Attributes:
        adapters: ``merged`` into the weights, ``traced`` as part of the graph, or None without adapters.
        files: the ONNX files, compared with PyTorch.
    """

    adapters: str | None
    files: list[Checked]


def require_onnx() -> None:
    """Check that the libraries for ONNX are installed.

    Raises:
        UserError: one is not.
    """
    if missing := [name for name in _LIBRARIES if find_spec(name) is None]:
        raise UserError(f"--onnx: requires {missing[0]}: pip install 'adapter4rec[onnx]'")


def write_onnx(recommender: Recommender, folder: Path) -> Exported:
    """Write a trained model as ONNX files, after comparing them with PyTorch.

    Args:
        recommender: the model of a run or of a bundle, in fp32.
        folder: the folder to write, which must not exist.

    Raises:
        UserError: the folder exists, a library is missing, the model has new items or another number format,
            or computes what an ONNX file cannot, or a file does not compute what PyTorch does.
    """
    require_onnx()
    run, model = recommender.run, recommender.run.model
    if recommender.candidates.n_new or recommender.precision != "fp32":
        raise UserError(f"{run.folder}: ONNX files are written in fp32, and without new items")
    if folder.exists():
        raise UserError(f"{folder}: already exists")
    vectors = recommender.items.rows[1:].cpu().numpy()
    with atomic_folder(folder) as aside, evaluating(model), _on_cpu(model):
        users, items = graphs_of(run)
        write_items(run, recommender.candidates, aside / "items.tsv")
        np.save(aside / "item_vectors.npy", vectors)
        if items is not None:
            items.write(aside)
        graphs = [users] if items is None else [items, users]
        adapters = write_graphs(graphs, aside)
        about = {
            "what": "adapter4rec ONNX export 1",
            "kind": f"{run.settings.modality} {run.settings.stage}",
            "method": run.settings.method,
            "adapters": adapters,
            "user_encoder": run.settings.user_encoder,
            "max_seq_len": run.settings.max_seq_len,
            "content": None if items is None else items.describe(),
            "files": {graph.file: _signature(graph) for graph in graphs},
            "versions": versions(),
        }
        write_json(aside / "onnx.json", about)
        from adapter4rec.serving.onnx import checking, recommend  # need onnxruntime

        written = recommend.Model(aside, torch.get_num_threads())
        files = [] if items is None else [checking.check_items(items, written)]
        files.append(checking.check_users(users, written))
        shutil.copy(recommend.__file__, aside / "recommend.py")
        sizes = "\n".join(f"- `{one.file}`, {one.bytes / 1e6:,.1f} MB" for one in files)
        (aside / "README.md").write_text(_README.format(name=folder.name, files=sizes), encoding="utf-8")
    return Exported(adapters, files)


def write_graphs(graphs: Sequence[Graph], folder: Path) -> str | None:
    """Write the files of a model in eval mode on the CPU, which is left as it was.

    Returns:
        What became of the adapters: see :class:`Exported`.

    Raises:
        UserError: PyTorch cannot trace a graph.
    """
    model = graphs[0].model
    if adapters_of(model) is None:
        merged, adapters = None, None
    else:
        try:
            merged, adapters = merge_adapters(model), "merged"
        except UserError:  # of a family that adds operations
            merged, adapters = None, "traced"
    try:
        for graph in graphs:
            _trace(graph, folder / graph.file)
    finally:
        if merged is not None:
            unmerge_adapters(model, merged)
    return adapters


def _trace(graph: Graph, path: Path) -> None:
    """Write a function of tensors as an ONNX file.

    Raises:
        UserError: PyTorch cannot trace it.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    size = sum(one.numel() * one.element_size() for one in graph.model.parameters())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                graph.eval(),
                graph.example(),
                dynamo=True,
                input_names=list(graph.axes),
                output_names=[graph.output],
                dynamic_shapes=graph.axes,
                verbose=False,
            )
        except Exception as error:  # the exporter raises errors of any type for what it cannot trace
            reason = next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)
            raise UserError(f"{path.name}: PyTorch cannot trace the model: {reason}") from error
        assert program is not None
        ClearMetadataAndDocStringPass()(program.model)  # of each operation: half of the file of a small model
        program.save(path, external_data=size > _LARGEST_FILE)


@contextmanager
def _on_cpu(model: TransRec) -> Iterator[None]:
    device = next(model.parameters()).device
    model.cpu()
    try:
        yield
    finally:
        model.to(device)


def _signature(graph: Graph) -> dict[str, Any]:
    """Name, number format and shape of the inputs and of the output; names of dimensions of any size."""
    inputs = {
        name: {
            "type": str(tensor.dtype).removeprefix("torch."),
            "shape": [axes.get(place, size) for place, size in enumerate(tensor.shape)],
        }
        for (name, axes), tensor in zip(graph.axes.items(), graph.example(), strict=True)
    }
    first = next(iter(graph.axes.values()))[0]
    output = {"type": "float32", "shape": [first, graph.model.user_encoder.width]}
    return {"inputs": inputs, "outputs": {graph.output: output}}


_README = """# {name}

A recommender as ONNX files: an item encoder maps the content of an item to an embedding, and a user encoder
maps the embeddings of the clicked items, oldest first, to a vector. The score of an item is the inner product
of the two. adapter4rec has written them, and is not needed to use them:

    pip install onnxruntime numpy tokenizers        # with images: pillow
    python recommend.py ITEM ITEM --top-k 5

`items.tsv` has the names and texts of the items, `item_vectors.npy` their embeddings, one row each. To use
the files from another language, read `recommend.py`, which is short, and `onnx.json`, which has the inputs
and outputs:

{files}
"""
