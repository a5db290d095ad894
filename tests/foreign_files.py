"""Files of weights as other libraries write them: TensorFlow, PyTorch, Keras 2."""

import tarfile

import h5py
import pytest
import tensorflow as tf


def write_legacy_h5(path, tensors):
    """The layout of Keras 2, from `<layer>/<variable>` names."""
    with h5py.File(path, "w") as file:
        layers = sorted({name.split("/")[0] for name in tensors})
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            names = [name for name in tensors if name.startswith(f"{layer}/")]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
            for name in names:
                group[f"{name}:0"] = tensors[name]


def write_v1(path, tensors):
    """The format of TensorFlow 1 before 2017, which the released checkpoints of slim have: one file."""
    tf.raw_ops.Save(filename=str(path), tensor_names=list(tensors), data=list(tensors.values()))


def write_v2(path, tensors):
    """The format of TensorFlow 1 since 2017: several files that begin with `path`."""
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def write_tar_gz(path, tensors):
    """A checkpoint as slim's are released."""
    checkpoint = path.with_name("model.ckpt")
    write_v1(checkpoint, tensors)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(checkpoint, checkpoint.name)


def write_pth(path, state, old=False):
    """A state dict, from names to PyTorch's tensors, as PyTorch writes it or (`old`) wrote it before 2020."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[parity]'")
    torch.save(state, path, _use_new_zipfile_serialization=not old)
