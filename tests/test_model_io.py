"""Model files: round trips, equal bytes, safe writing, and the refusal of everything that is damaged or hostile."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import gpuprop
from gpuprop.core.embedding import InputEmbedding
from gpuprop.errors import ModelFileError
from gpuprop.model.container import DTYPES, FORMAT_VERSION, MAX_HEADER_BYTES, read_file, write_file
from gpuprop.model.network_file import NETWORK
from gpuprop.model.stored_network import load_network

METADATA = {"kind": "network", "parameters": {"layer_sizes": [3, 1]}, "classes": ["é", 1, 2.5, True, None]}


def sample(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"weights.0": rng.normal(size=(3, 1)).astype(np.float32), "biases.0": np.array([np.nan])}


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return the bytes of a safetensors file, written by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def forged(tensors: dict[str, Any], metadata: dict[str, Any]) -> bytes:
    """Return a complete file with a valid digest, whatever its metadata say; the format restated independently."""
    digest = hashlib.sha256(canonical(metadata))
    header, data = {}, b""
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(canonical([name, array.dtype.name, list(array.shape)]) + array.tobytes())
        kind = {"float32": "F32", "float64": "F64"}[array.dtype.name]
        span = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        data += array.tobytes()
    described = {**metadata, "sha256": digest.hexdigest()}
    return raw({"__metadata__": {"gpuprop": canonical(described).decode()}, **header}, data)


def refusal(path: Path, content: bytes | None = None, load: Callable[[Path], object] = read_file) -> str:
    """Return the message of the ModelFileError that reading gives; it is one line and names the file."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


# --- round trips and bytes ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from([*DTYPES.values(), ">f8", ">i4"]),
    shape=st.lists(st.sampled_from([1, 2, 7, 17]), max_size=4).map(tuple),
    layout=st.sampled_from(["C", "F", "strided", "reversed"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip_keeps_every_bit(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, shape: tuple[int, ...], layout: str, seed: int
) -> None:
    path = tmp_path_factory.mktemp("round_trip") / "m.safetensors"
    target = np.dtype(dtype)
    # Random bytes: subnormals, infinities and NaNs with payloads among them.
    size = int(np.prod(shape)) * target.itemsize
    tensor = np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8)
    tensor = (tensor % 2).view(bool).reshape(shape) if dtype == "bool" else tensor.view(target).reshape(shape)
    expected = tensor.copy()
    if layout == "F" and tensor.ndim:
        tensor = np.asfortranarray(tensor)
    elif layout == "strided" and tensor.ndim:
        tensor = np.repeat(tensor, 2, axis=0)[::2]
    elif layout == "reversed" and tensor.ndim:
        tensor = tensor[::-1].copy()[::-1]
    write_file(path, {"t": tensor}, METADATA)
    tensors, metadata = read_file(path)
    assert metadata == METADATA
    got = tensors["t"]
    assert (got.dtype, got.shape) == (target.newbyteorder("="), shape)
    assert got.tobytes() == expected.astype(target.newbyteorder("<")).tobytes()
    assert got.flags.writeable
    assert got.flags.c_contiguous


def test_the_file_is_safetensors_with_one_sorted_metadata_key(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = sample()
    write_file(path, tensors, METADATA)
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {"weights.0", "biases.0"}
        np.testing.assert_array_equal(file.get_tensor("weights.0"), tensors["weights.0"])
        stored = file.metadata()
    assert set(stored) == {"gpuprop"}
    found = json.loads(stored["gpuprop"])
    assert stored["gpuprop"].encode() == canonical(found)
    assert found.pop("sha256") == json.loads(_stored_metadata(forged(tensors, found)))["sha256"]
    assert found == {**METADATA, "format_version": 1}


def _stored_metadata(content: bytes) -> str:
    length = int.from_bytes(content[:8], "little")
    text: str = json.loads(content[8 : 8 + length])["__metadata__"]["gpuprop"]
    return text


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(forged(sample(), {"format_version": 1, "kind": "x"}))
    tensors, metadata = read_file(path)
    assert metadata == {"kind": "x"}
    np.testing.assert_array_equal(tensors["biases.0"], [np.nan])


def test_equal_contents_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from gpuprop.model.container import write_file
names = [f"{kind}.{i}" for i in range(20) for kind in ("weights", "biases")]
order = names if sys.argv[2] == "forward" else names[::-1]
tensors = {n: np.arange(len(n), dtype="f4" if n[0] == "w" else "f8") for n in order}
metadata = {n: {"b": [1, 2.5], "a": (n,)} for n in order}
write_file(sys.argv[1], tensors, metadata)
"""
    contents = set()
    for number, order in enumerate(["forward", "backward", "forward"]):
        path = tmp_path / f"{number}.safetensors"
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(number),
            "PYTHONPATH": str(Path(gpuprop.__file__).parents[1]),
        }
        subprocess.run([sys.executable, "-W", "error", "-c", code, str(path), order], env=environment, check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1


# --- writing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": np.zeros((0, 3))}, {}, "at least one element"),
        ({"a": np.zeros((1,) * 9)}, {}, "at most 8 dimensions"),
        ({"a": np.array(["text"])}, {}, "tensor 'a': got dtype <U4"),
        ({"a": np.zeros(1, complex)}, {}, "tensor 'a': got dtype complex128"),
        ({"__metadata__": np.zeros(1)}, {}, "tensor name '__metadata__'"),
        ({"": np.zeros(1)}, {}, "tensor name ''"),
        ({}, {"sha256": ""}, "metadata key 'sha256'"),
        ({}, {"format_version": 7}, "metadata key 'format_version'"),
        ({}, {"a": float("nan")}, "plain JSON without NaN"),
        ({}, {"a": [float("-inf")]}, "plain JSON without NaN"),
        ({}, {"a": {1: 2, "1": 3}}, "plain JSON"),
        ({}, {"a": np.float32(1)}, "plain JSON"),
        ({}, {"a": np.zeros(1)}, "plain JSON"),
        ({}, {"a": "x" * MAX_HEADER_BYTES}, "bytes of metadata, expected at most"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_a_file_is_touched(
    tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, Any], message: str
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match=message):
        write_file(path, tensors, metadata)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == b"before"


def test_metadata_nested_without_end_is_refused(tmp_path: Path) -> None:
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(ValueError, match="plain JSON"):
        write_file(tmp_path / "m.safetensors", {}, {"a": nested})


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, place: str
) -> None:
    path = tmp_path / "m.safetensors"
    write_file(path, sample(), METADATA)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", fail) if place == "fsync" else (Path, "replace", fail)))
        expected = ModelFileError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            write_file(path, sample(1), METADATA)
    if isinstance(failure, OSError):
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_bytes(b"kept")
    (tmp_path / "a_folder").mkdir()
    for name, reason in [
        ("missing/m.safetensors", "No such file or directory"),
        ("a_file/m.safetensors", "Not a directory"),
        ("a_folder", "it is a folder"),
        ("x" * 300, "File name too long"),
    ]:
        with pytest.raises(ModelFileError, match="cannot be written: ") as caught:
            write_file(tmp_path / name, sample(), METADATA)
        assert reason in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a_file", "a_folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to every folder")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ModelFileError, match="cannot be written: Permission denied"):
            write_file(tmp_path / "m.safetensors", sample(), METADATA)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions and rarely allows links")
def test_links_are_followed_and_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    real, link, ordinary = tmp_path / "real", tmp_path / "link", tmp_path / "ordinary"
    real.write_bytes(b"before")
    link.symlink_to(real)
    write_file(link, sample(), METADATA)
    assert link.is_symlink()
    assert read_file(real)[1] == METADATA
    ordinary.touch()
    assert real.stat().st_mode == ordinary.stat().st_mode


# --- damaged files -----------------------------------------------------------------------------------------


def test_every_truncation_and_every_appended_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_file(path, sample(), METADATA)
    content = path.read_bytes()
    for length in range(len(content)):
        refusal(path, content[:length])
    assert "truncated or overlong" in refusal(path, content + b"\0")


@pytest.mark.parametrize("mask", [0x01, 0x20])
def test_every_changed_byte_is_refused(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "m.safetensors"
    write_file(path, sample(), METADATA)
    content = path.read_bytes()
    for place in range(len(content)):
        refusal(path, content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])


def test_exchanged_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_file(path, {"a": np.zeros(2), "b": np.ones(2)}, {})
    content = path.read_bytes()
    exchanged = content.replace(b'"a":{', b'"?":{').replace(b'"b":{', b'"a":{').replace(b'"?":{', b'"b":{')
    assert exchanged != content
    assert "SHA-256" in refusal(path, exchanged)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: raw(b"{" + data)))
def test_arbitrary_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    refusal(tmp_path_factory.getbasetemp() / "arbitrary.safetensors", content)


def test_missing_files_and_things_that_are_no_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == "cannot be read: No such file or directory"
    assert "a folder or a special file" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "special file" in refusal(tmp_path / "pipe")


# --- hostile files -----------------------------------------------------------------------------------------

GOOD_METADATA = {"gpuprop": '{"format_version":1}'}
FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def described(**tensors: Any) -> dict[str, Any]:
    return {"__metadata__": GOOD_METADATA, **tensors}


def own(text: str) -> dict[str, Any]:
    return {"__metadata__": {"gpuprop": text}}


HOSTILE = {
    "empty file": (b"", "got 0 bytes"),
    "length only": (raw(b""), "not valid JSON"),
    "length beyond file": (raw(b"{}", length=3), "expected a header of 3 bytes"),
    "largest length": (raw(b"{}", length=2**64 - 1), "expected a header of 18446744073709551615 bytes"),
    "not UTF-8": (raw(b'{"\xff":1}'), "not UTF-8 text at byte 10"),
    "not JSON": (raw(b"{'a': 1}"), "not valid JSON"),
    "two values": (raw(b"{} {}"), "not valid JSON"),
    "no object": (raw(b"[1, 2]"), "expected a JSON object"),
    "duplicate tensor": (raw(b'{"a":1,"a":1}'), "duplicate key"),
    "deep header": (raw(b'{"a":' + b"[" * 10**6), "nested too deeply"),
    "deep metadata": (raw(own('{"a":' + "[" * 10**6)), "nested too deeply"),
    "deep but complete metadata": (raw(own('{"format_version":1,"a":' + "[" * 900 + "]" * 900 + "}")), ""),
    "no metadata": (raw({"a": FOUR}, bytes(4)), "not a model file of gpuprop"),
    "metadata is text": (raw({"__metadata__": "gpuprop"}), "not a model file of gpuprop"),
    "foreign metadata": (raw({"__metadata__": {"format": "pt"}}), "not a model file of gpuprop"),
    "further metadata": (raw({"__metadata__": {**GOOD_METADATA, "x": "y"}}), "not a model file of gpuprop"),
    "metadata not text": (raw({"__metadata__": {"gpuprop": {}}}), "not a model file of gpuprop"),
    "metadata not JSON": (raw(own("__import__('os')")), "the metadata is not valid JSON"),
    "metadata a list": (raw(own("[]")), "the metadata is [], expected a JSON object"),
    "duplicate metadata": (raw(own('{"format_version":1,"format_version":1}')), "the metadata has a duplicate key"),
    "NaN": (raw(own('{"format_version":1,"a":NaN}')), "holds 'NaN', expected finite"),
    "Infinity": (raw(own('{"format_version":1,"a":-Infinity}')), "holds '-Infinity', expected finite"),
    "overflowing number": (raw(own('{"format_version":1,"a":1e999}')), "holds '1e999', expected finite"),
    "endless integer": (raw(own('{"format_version":' + "9" * 10**5 + "}")), "not valid JSON"),
    "no version": (raw(own("{}")), "got format_version None"),
    "version 0": (raw(own('{"format_version":0}')), "got format_version 0"),
    "version true": (raw(own('{"format_version":true}')), "got format_version True"),
    "version 1.0": (raw(own('{"format_version":1.0}')), "got format_version 1.0"),
    "newer version": (raw(own('{"format_version":2}')), "format version 2, expected at most 1; upgrade gpuprop"),
    "metadata not sorted": (raw(own('{"kind":"a","format_version":1}')), "not sorted JSON"),
    "metadata with spaces": (raw(own('{"format_version": 1}')), "not sorted JSON"),
    "no digest": (raw(own('{"format_version":1}')), "SHA-256 does not match"),
    "digest of a wrong type": (raw(own('{"format_version":1,"sha256":[1]}')), "SHA-256 does not match"),
    "tensor is a number": (raw(described(a=1)), "tensor 'a': got 1, expected dtype"),
    "tensor lacks a key": (raw(described(a={"dtype": "F32", "shape": [1]})), "expected dtype, shape and data_offsets"),
    "tensor has a further key": (raw(described(a={**FOUR, "x": 1}), bytes(4)), "expected dtype, shape"),
    "unknown dtype": (raw(described(a={**FOUR, "dtype": "BF16"}), bytes(4)), "got dtype 'BF16'"),
    "dtype a list": (raw(described(a={**FOUR, "dtype": []}), bytes(4)), "got dtype []"),
    "shape a number": (raw(described(a={**FOUR, "shape": 1}), bytes(4)), "got shape 1,"),
    "shape of floats": (raw(described(a={**FOUR, "shape": [1.0]}), bytes(4)), "got shape [1.0]"),
    "shape of booleans": (raw(described(a={**FOUR, "shape": [True]}), bytes(4)), "got shape [True]"),
    "negative shape": (raw(described(a={**FOUR, "shape": [-1, -1]}), bytes(4)), "got shape [-1, -1]"),
    "empty tensor": (raw(described(a={**FOUR, "shape": [0], "data_offsets": [0, 0]})), "got shape [0]"),
    "absurd shape": (raw(described(a={**FOUR, "shape": [2**62, 4]}), bytes(4)), "sizes that fit the file"),
    "shape that overflows": (raw(described(a={**FOUR, "shape": [2**32, 2**32]}), bytes(4)), "sizes that fit the file"),
    "many dimensions": (raw(described(a={**FOUR, "shape": [1] * 70}), bytes(4)), "expected up to 8 sizes"),
    "shape and bytes disagree": (raw(described(a={**FOUR, "shape": [2]}), bytes(4)), "got 4 bytes, expected 8"),
    "offsets beyond file": (raw(described(a={**FOUR, "data_offsets": [0, 8]}), bytes(4)), "got data_offsets [0, 8]"),
    "negative offsets": (raw(described(a={**FOUR, "data_offsets": [-4, 0]}), bytes(4)), "got data_offsets [-4, 0]"),
    "offsets reversed": (raw(described(a={**FOUR, "data_offsets": [4, 0]}), bytes(4)), "got -4 bytes, expected 4"),
    "offsets text": (raw(described(a={**FOUR, "data_offsets": ["0", "4"]}), bytes(4)), "got data_offsets ['0', '4']"),
    "one offset": (raw(described(a={**FOUR, "data_offsets": [4]}), bytes(4)), "got data_offsets [4]"),
    "overlap": (raw(described(a=FOUR, b=FOUR), bytes(4)), "tensor 'b': got offset 0, expected 4: gap or overlap"),
    "gap": (raw(described(a={**FOUR, "data_offsets": [1, 5]}), bytes(5)), "tensor 'a': got offset 1, expected 0"),
    "more data": (raw(described(a=FOUR), bytes(5)), "truncated or overlong"),
    "terminal codes in a name": (raw(described(**{"\x1b[2J\n": 1})), r"tensor '\x1b[2J\n': got 1"),
    "endless name": (raw(described(**{"x" * 10**5: 1})), "xxx...: got 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    assert message in refusal(tmp_path / "m.safetensors", content)


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        (raw(b"{", length=2**29), 2**30, f"got a header of {2**29} bytes, expected at most"),
        (raw(described(a={"dtype": "F32", "shape": [2**27], "data_offsets": [0, 2**29]})), 2**31, "truncated or"),
        (raw(described(a={"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**29]})), 2**31, "got 536870912 "),
        (raw({"a": FOUR}), 2**31, "not a model file of gpuprop"),
        (raw(own('{"format_version":99}')), 2**31, "upgrade gpuprop"),
    ],
)
def test_refusal_takes_no_memory(tmp_path: Path, header: bytes, size: int, message: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(header)
    os.truncate(path, size)  # sparse: it takes no disk either
    tracemalloc.start()
    try:
        found = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in found
    assert peak < 2**20


def test_nothing_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    trap = pickle.dumps(Trap())
    np.savez(tmp_path / "trap.npz", a=np.array([Trap()], dtype=object))
    for content in (trap, raw(trap), raw(own(trap.decode("latin-1"))), (tmp_path / "trap.npz").read_bytes()):
        refusal(tmp_path / "m.safetensors", content)
    assert not (tmp_path / "executed").exists()
    pickle.loads(trap)
    assert (tmp_path / "executed").exists()  # the trap would have worked


# --- networks ----------------------------------------------------------------------------------------------


def network(**options: Any) -> gpuprop.Network:
    return gpuprop.Network(**{"layer_sizes": (7, 17, 5, 3), "seed": 1, "device": "cpu", **options})


NETWORKS: dict[str, dict[str, Any]] = {
    "numbers embedded": {"layer_sizes": (7, 5, 3), "embedding": InputEmbedding(1, 3), "slopes": True},
    "categories embedded": {"layer_sizes": (9, 3), "embedding": InputEmbedding(0, 1, (4,))},
    "nothing embedded": {"layer_sizes": (3, 2), "embedding": InputEmbedding(0, 3)},
    "defaults": {},
    "float64": {"dtype": "float64"},
    "one layer": {"layer_sizes": (1, 1)},
    "activations": {"hidden_activation": ["gelu", "softplus"], "output_activation": "tanh"},
    "penalties": {"l1": 0.1, "l2": 1e-300, "dropout": (0.2, 0.5), "loss": "poisson"},
    "classes": {"loss": "categorical_cross_entropy", "classes": ["ä", 2, -0.5]},
    "names and seed": {"feature_names": list("abcdefg"), "seed": 2**64 - 1},
    "scaling": {"input_scaling": gpuprop.InputScaling(np.arange(7) / 3, 1 / np.arange(1, 8))},
    "one scale": {"input_scaling": gpuprop.InputScaling.divide(255)},
}


@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_survives(tmp_path: Path, case: str) -> None:
    before = network(**NETWORKS[case])
    for biases in before.biases:
        biases[...] = np.random.default_rng(3).normal(size=biases.shape)
    before.weights[0][0, 0] = np.inf  # a diverged network can be saved and looked at
    before.save(tmp_path / "m.safetensors")
    after = gpuprop.load(tmp_path / "m.safetensors", device="numpy")
    assert after.get_config() == before.get_config()
    assert after.device_ == "numpy"
    assert after.parameters.dtype == before.parameters.dtype
    assert after.parameters.tobytes() == before.parameters.tobytes()
    n_inputs = before.layer_sizes[0] if before.spec.embedding is None else before.spec.embedding.n_inputs
    X = np.random.default_rng(0).normal(size=(4, n_inputs))
    before.weights[0][0, 0] = after.weights[0][0, 0] = 0.5
    np.testing.assert_array_equal(after.forward(X), before.copy(device="numpy").forward(X))
    # And the file of the loaded network is the same file.
    before.save(tmp_path / "again")
    after.save(tmp_path / "third")
    assert (tmp_path / "third").read_bytes() == (tmp_path / "again").read_bytes()


def test_the_folder_of_a_run_stands_for_its_model(tmp_path: Path) -> None:
    network().save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert gpuprop.load(str(tmp_path)).layer_sizes == (7, 17, 5, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=r"empty.model\.safetensors: cannot be read: No such file"):
        gpuprop.load(tmp_path / "empty")


def test_an_activation_of_ones_own_is_handed_in(tmp_path: Path) -> None:
    cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    before = network(hidden_activation=[cube, "relu"])
    before.save(tmp_path / "m.safetensors")
    message = refusal(tmp_path / "m.safetensors", load=gpuprop.load)
    assert message == (
        "the network uses an activation 'cube' that is not gpuprop's own; "
        "pass the object: gpuprop.load(path, activations=(...,))"
    )
    after = gpuprop.load(tmp_path / "m.safetensors", activations=(cube,))
    assert after.hidden_activations[0] is cube
    X = np.random.default_rng(0).normal(size=(4, 7))
    np.testing.assert_array_equal(after.forward(X), before.forward(X))


def test_functions_that_their_names_do_not_tell_are_refused_before_a_file_is_touched(tmp_path: Path) -> None:
    cube = gpuprop.Activation("own", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    square = gpuprop.Activation("own", lambda z: z**2, lambda z: 2 * z, derivative_of="z")
    with pytest.raises(ValueError, match="two different activations named 'own'"):
        network(hidden_activation=[cube, square]).save(tmp_path / "m.safetensors")
    for name in ("mine", "absolute_error"):
        loss = replace(gpuprop.losses.get_loss("squared_error"), name=name)
        with pytest.raises(ValueError, match=f"loss: got '{name}', which is not one of gpuprop's own"):
            network(loss=loss).save(tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match=r"classes: got .*2020"):  # it would come back an integer
        network(classes=np.array(["2020-01-01", "2021-01-01", "2022-01-01"], "datetime64[ns]"))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_device_is_no_flaw_of_the_file(tmp_path: Path) -> None:
    network().save(tmp_path)
    with pytest.raises(ValueError, match="unknown device 'gpu'") as caught:
        gpuprop.load(tmp_path, device="gpu")
    assert not isinstance(caught.value, ModelFileError)


CONFIG = network(classes=["a", "b", "c"], input_scaling=gpuprop.InputScaling.divide(2)).get_config()
TENSORS = {
    f"{kind}.{layer}": np.zeros(shape, np.float32)
    for layer, (fan_in, fan_out) in enumerate([(7, 17), (17, 5), (5, 3)])
    for kind, shape in (("weights", (fan_in, fan_out)), ("biases", (fan_out,)))
}
CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (
        {"attention": 4},
        "parameters holds an unknown 'attention'; upgrade gpuprop if a later version",
    ),
    "device": ({"device": "cuda"}, "metadata.parameters holds an unknown 'device'"),
    "no sizes": ({"layer_sizes": None}, "layer_sizes: got None, expected a list of 2 or more"),
    "one size": ({"layer_sizes": [7]}, "layer_sizes: got [7], expected a list of 2 or more"),
    "sizes of floats": ({"layer_sizes": [7, 17.0, 5, 3]}, "layer_sizes[1]: got 17.0, expected an integer from 1"),
    "negative size": ({"layer_sizes": [7, -17, 5, 3]}, "layer_sizes[1]: got -17, expected an integer from 1"),
    "other sizes": (
        {"layer_sizes": [7, 16, 5, 3]},
        "tensor 'weights.0': got float32 (7, 17), expected float32 (7, 16)",
    ),
    "absurd sizes": ({"layer_sizes": [7, 17, 5, 10**12]}, "tensor 'weights.2': got float32 (5, 3)"),
    "fewer layers": ({"layer_sizes": [7, 17, 5]}, "got 6 tensors, expected weights and biases for"),
    "other dtype": ({"dtype": "float64"}, "expected float64 (7, 17)"),
    "unknown dtype": ({"dtype": "float16"}, "dtype: got 'float16', expected 'float32' or 'float64'"),
    "unknown loss": ({"loss": "squared_eror"}, "unknown loss"),
    "loss a list": ({"loss": []}, "metadata.parameters.loss: got [], expected text"),
    "impossible pair": ({"loss": "poisson", "output_activation": "tanh"}, "do not make a network"),
    "activation a number": ({"hidden_activation": 1}, "hidden_activation: got 1, expected text or a list, each text"),
    "activation a list": ({"output_activation": ["relu"]}, "output_activation: got ['relu'], expected text or null"),
    "activations nested": ({"hidden_activation": [["relu"], {}]}, "hidden_activation[0]: got ['relu'], expected text"),
    "negative penalty": ({"l2": -1.0}, "l2"),
    "huge penalty": ({"l2": 10**400}, "expected a finite number of at least 0"),
    "dropout 1": ({"dropout": 1.0}, "dropout"),
    "dropout an object": ({"dropout": {"a": 1}}, "dropout"),
    "seed text": ({"seed": "0"}, "seed"),
    "scaling a list": ({"input_scaling": [1, 2]}, "input_scaling"),
    "scaling incomplete": ({"input_scaling": {"shift": 0}}, "input_scaling.scale is missing"),
    "scaling too wide": ({"input_scaling": {"shift": [0] * 8, "scale": 1}}, "shift has 8 entries, expected 7"),
    "scaling ragged": (
        {"input_scaling": {"shift": [0, [1]], "scale": 1}},
        "shift[1]: got [1], expected a finite",
    ),
    "scaling huge": ({"input_scaling": {"shift": 10**400, "scale": 1}}, "expected a finite number or a list"),
    "classes nested": ({"classes": [["a"], "b", "c"]}, "classes"),
    "classes a number": ({"classes": 3}, "classes: got 3, expected null or a list"),
    "too few names": ({"feature_names": ["a"]}, "feature_names"),
}


def test_a_file_may_hold_all_arguments_of_a_network_but_those_of_its_making() -> None:
    arguments = set(inspect.signature(gpuprop.Network).parameters) - {"device", "emulate", "init"}
    assert {*NETWORK.required, *NETWORK.optional} == arguments


@pytest.mark.parametrize("case", CHANGED)
def test_parameters_that_make_no_network_are_refused(tmp_path: Path, case: str) -> None:
    change, message = CHANGED[case]
    metadata = {"format_version": 1, "kind": "network", "parameters": {**CONFIG, **change}}
    assert message in refusal(tmp_path / "m.safetensors", forged(TENSORS, metadata), gpuprop.load)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "got a file of kind None, expected 'network'"),
        ({"kind": "optimizer"}, "got a file of kind 'optimizer', expected 'network'"),
        ({"kind": "network"}, "metadata.parameters is missing"),
        ({"kind": "network", "parameters": [1]}, "metadata.parameters: got [1], expected an object"),
        ({"kind": "network", "parameters": {}}, "metadata.parameters.layer_sizes is missing"),
    ],
)
def test_files_that_hold_no_network_are_refused(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    content = forged(TENSORS, {"format_version": FORMAT_VERSION, **metadata})
    assert message in refusal(tmp_path / "m.safetensors", content, gpuprop.load)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights.1": None}, "got 5 tensors, expected weights and biases"),
        ({"weights.1": None, "weights.9": np.zeros((17, 5), np.float32)}, "tensor 'weights.1' is missing"),
        ({"surplus": np.zeros(1, np.float32)}, "got 7 tensors, expected weights and biases"),
        ({"biases.2": np.zeros((3, 1), np.float32)}, "tensor 'biases.2': got float32 (3, 1), expected float32 (3,)"),
        ({"biases.2": np.zeros(3)}, "tensor 'biases.2': got float64 (3,), expected float32 (3,)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tensors = {name: tensor for name, tensor in {**TENSORS, **change}.items() if tensor is not None}
    metadata = {"format_version": 1, "kind": "network", "parameters": CONFIG}
    assert message in refusal(tmp_path / "m.safetensors", forged(tensors, metadata), gpuprop.load)


def test_the_unchanged_forgery_is_a_network(tmp_path: Path) -> None:
    """The refusals above are for what was changed, not for the forging."""
    metadata = {"format_version": 1, "kind": "network", "parameters": CONFIG}
    (tmp_path / "m.safetensors").write_bytes(forged(TENSORS, metadata))
    loaded = load_network(tmp_path / "m.safetensors", device="cpu")
    assert loaded.get_config() == CONFIG
    assert not loaded.parameters.any()


def test_absurd_layer_sizes_take_no_memory(tmp_path: Path) -> None:
    parameters = {**CONFIG, "layer_sizes": [7, 17, 5, 10**15]}
    content = forged(TENSORS, {"format_version": 1, "kind": "network", "parameters": parameters})
    path = tmp_path / "m.safetensors"
    refusal(path, content, gpuprop.load)  # the modules it imports take memory the first time
    tracemalloc.start()
    try:
        refusal(path, content, gpuprop.load)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
