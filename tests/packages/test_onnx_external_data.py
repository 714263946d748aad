"""Every file that a model keeps weights in is found, is listed, and is hashed; nothing else passes."""

import tracemalloc
from datetime import timedelta

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from agent.errors import BadPackageFile
from agent.packages.manifest import OnnxModel
from agent.packages.onnx_external_data import MAX_DEPTH, MAX_LOCATION, PARTS, external_data_files
from agent.packages.package import read_package, verify_files
from tests.support.packages import (
    add_file,
    changed,
    constant_score_model,
    darkness_model,
    first_channel_model,
    first_pixel_model,
    make_package,
    rewrite_manifest,
    slow_model,
)

# --- models whose weights lie elsewhere


def external(location, name="w", **more):
    """A float32 tensor of one value, kept in the file `location`."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in {"offset": "0", "location": location, "length": "4", **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse(values, indices):
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def plain(name="i"):
    return numpy_helper.from_array(np.array([1], np.int64), name)


def graph(nodes=(), initializer=(), sparse_initializer=()):
    return helper.make_graph(
        list(nodes), "g", [], [], initializer=list(initializer), sparse_initializer=list(sparse_initializer)
    )


def constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def attribute(name, kind, **fields):
    return AttributeProto(name=name, type=kind, **fields)


def node_with(*attributes):
    node = helper.make_node("Anything", [], ["out"])
    node.attribute.extend(attributes)
    return node


def in_an_initializer():
    return helper.make_model(graph(initializer=[plain(), external("w.bin")]))


def in_both_branches_of_an_if():
    branches = {
        "then_branch": graph(initializer=[external("then.bin")]),
        "else_branch": graph([constant(external("else.bin"))]),
    }
    return helper.make_model(graph([helper.make_node("If", ["yes"], ["out"], **branches)]))


def in_the_body_of_a_loop():
    loop = helper.make_node("Loop", ["n", "yes"], ["out"], body=graph(initializer=[external("body.bin")]))
    outer = helper.make_node("If", ["yes"], ["out"], then_branch=graph([loop]), else_branch=graph())
    return helper.make_model(graph([outer]))


def in_a_function():
    function = helper.make_function(
        "mine", "f", [], ["c"], [constant(external("f.bin"))], [helper.make_opsetid("", 18)]
    )
    function.attribute_proto.append(attribute("default", AttributeProto.TENSOR, t=external("default.bin")))
    return helper.make_model(graph(), functions=[function])


def in_a_constant():
    return helper.make_model(graph([constant(external("deep/er/c.bin"))]))


def in_lists_of_tensors_and_graphs():
    return helper.make_model(
        graph(
            [
                node_with(
                    attribute("a", AttributeProto.TENSORS, tensors=[plain(), external("1.bin"), external("2.bin")]),
                    attribute("b", AttributeProto.GRAPHS, graphs=[graph(), graph(initializer=[external("3.bin")])]),
                )
            ]
        )
    )


def in_sparse_tensors():
    return helper.make_model(
        graph(
            [
                node_with(
                    attribute("a", AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse(external("1"), external("2"))),
                    attribute("b", AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse(external("3"), plain())]),
                )
            ],
            sparse_initializer=[sparse(plain(), external("4")), sparse(external("5"), plain())],
        )
    )


def in_training_graphs():
    model = helper.make_model(graph())
    model.training_info.add(initialization=graph(initializer=[external("1")]))
    model.training_info.add(algorithm=graph([constant(external("2"))]))
    return model


def in_one_file_of_many_tensors():
    return helper.make_model(graph(initializer=[external("w.bin", f"w{index}") for index in range(50)]))


EXTERNAL = {
    in_an_initializer: {"w.bin"},
    in_both_branches_of_an_if: {"then.bin", "else.bin"},
    in_the_body_of_a_loop: {"body.bin"},
    in_a_function: {"f.bin", "default.bin"},
    in_a_constant: {"deep/er/c.bin"},
    in_lists_of_tensors_and_graphs: {"1.bin", "2.bin", "3.bin"},
    in_sparse_tensors: set("12345"),
    in_training_graphs: {"1", "2"},
    in_one_file_of_many_tensors: {"w.bin"},
}
TINY = [
    darkness_model,
    first_pixel_model,
    first_channel_model,
    slow_model,
    lambda: constant_score_model(float("nan")),
]


def reference(message):
    """The locations in a message and all messages in it, as the onnx library's descriptors know them."""
    found = set()
    if isinstance(message, TensorProto):
        found |= {entry.value for entry in message.external_data if entry.key == "location"}
    for field, value in message.ListFields():
        if field.message_type is not None:
            repeated = not hasattr(value, "ListFields")
            found = found.union(*map(reference, value if repeated else [value]))
    return found


@pytest.fixture(scope="module")
def found_in(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.onnx"

    def found(content):
        path.write_bytes(content)
        return external_data_files(path)

    return found


# --- what is found


@pytest.mark.parametrize(("make", "files"), EXTERNAL.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_external_data_are_found_wherever_a_tensor_can_be(found_in, make, files):
    model = make()
    assert reference(model) == files
    assert found_in(model.SerializeToString()) == files


@pytest.mark.parametrize("make", TINY)
def test_a_model_that_holds_its_weights_has_no_external_data(found_in, make):
    assert reference(make()) == set()
    assert found_in(make().SerializeToString()) == frozenset()


def test_a_model_written_by_the_onnx_library_names_the_files_it_wrote(tmp_path):
    onnx.save_model(
        darkness_model(), tmp_path / "one.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert external_data_files(tmp_path / "one.onnx") == {"w.bin"}
    onnx.save_model(
        darkness_model(),
        tmp_path / "many.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    written = {path.name for path in tmp_path.iterdir()} - {"one.onnx", "many.onnx", "w.bin"}
    assert external_data_files(tmp_path / "many.onnx") == written
    assert len(written) == 5


def test_every_way_to_a_tensor_that_the_onnx_library_knows_is_walked():
    def fields_to(target, descriptor, seen):
        """For each message type that can hold a target: its fields that lead there."""
        if descriptor.name in seen:
            return
        seen[descriptor.name] = {}
        for field in descriptor.fields:
            if field.message_type is not None:
                fields_to(target, field.message_type, seen)
                seen[descriptor.name][field.number] = field.message_type.name

    known = {}
    fields_to("TensorProto", onnx.ModelProto.DESCRIPTOR, known)
    leading = {"TensorProto"}
    while True:
        more = {kind for kind, fields in known.items() if leading & set(fields.values())} - leading
        if not more:
            break
        leading |= more
    expected = {
        kind: {number: part for number, part in known[kind].items() if part in leading}
        for kind in leading - {"TensorProto"}
    }
    (external_data,) = (field for field in TensorProto.DESCRIPTOR.fields if field.name == "external_data")
    expected["TensorProto"] = {external_data.number: "StringStringEntryProto"}
    assert expected == PARTS
    entry = onnx.StringStringEntryProto.DESCRIPTOR
    assert {field.name: field.number for field in entry.fields} == {"key": 1, "value": 2}


def test_a_location_counts_even_where_the_tensor_says_that_it_is_not_used(found_in):
    tensor = external("w.bin")
    tensor.data_location = TensorProto.DEFAULT
    assert found_in(helper.make_model(graph(initializer=[tensor])).SerializeToString()) == {"w.bin"}
    tensor.ClearField("data_location")
    assert found_in(helper.make_model(graph(initializer=[tensor])).SerializeToString()) == {"w.bin"}


def test_each_of_several_locations_of_one_tensor_counts(found_in):
    tensor = external("first")
    tensor.external_data.add(key="location", value="second")
    assert found_in(helper.make_model(graph(initializer=[tensor])).SerializeToString()) == {"first", "second"}


def test_a_graph_in_two_pieces_is_one_graph(found_in):
    pieces = [onnx.ModelProto(graph=graph(initializer=[external(name)])).SerializeToString() for name in "ab"]
    assert found_in(b"".join(pieces)) == {"a", "b"}


def test_raw_weights_are_stepped_over(tmp_path):
    size = 1 << 30
    path = tmp_path / "model.onnx"

    def length(number):
        groups = [(number >> 7 * index & 0x7F) | 0x80 for index in range(4)]
        return bytes([*groups, number >> 28])

    after = external("w.bin").SerializeToString()
    raw = b"\x4a" + length(size)  # TensorProto.raw_data
    tensor = b"\x2a" + length(len(raw) + size + len(after))  # GraphProto.initializer
    whole = b"\x3a" + length(len(tensor) + len(raw) + size + len(after))  # ModelProto.graph
    with path.open("wb") as file:
        file.write(whole + tensor + raw)
        file.seek(size, 1)  # a hole: takes no room on the disk
        file.write(after)
    tracemalloc.start()
    try:
        assert external_data_files(path) == {"w.bin"}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# --- what is no model

NO_MODEL = '"model.onnx" in the package: it is no ONNX model.'


def wrapped(content, *tags):
    for tag in tags:
        content = bytes([tag]) + encoded(len(content)) + content
    return content


def encoded(number):
    content = bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


IN_A_TENSOR = (0x6A, 0x2A, 0x3A)  # external_data, initializer, graph


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\x3a",  # a length is missing
        b"\x3a\x01",  # shorter than its length
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length beyond every file
        b"\x08" + b"\x80" * 20 + b"\x00",  # a number without end
        b"\x09\x00",  # a fixed64 cut short
        b"\x0d\x00",  # a fixed32 cut short
        b"\x0b\x0c",  # a group
        b"\x0e",  # no such wire type
        b"\x02\x00",  # field 0
        b"\xba\x80\x80\x80\x10\x00",  # field 7 to a parser that drops the upper bits
        b"ORTM" + bytes(40),
        wrapped(b"\x0a\x08location\x12\x02\xff\xfe", *IN_A_TENSOR),  # no UTF-8
        wrapped(b"\x0a\x08location\x12" + encoded(MAX_LOCATION + 1) + b"a" * (MAX_LOCATION + 1), *IN_A_TENSOR),
        wrapped(b"\x0a\x08location\x12\x7fa", *IN_A_TENSOR),  # an entry reaches beyond its end
    ],
)
def test_what_is_no_model_is_refused(found_in, content):
    with pytest.raises(BadPackageFile) as refusal:
        found_in(content)
    assert str(refusal.value) == NO_MODEL


def nested(messages):
    """A model with as many messages inside messages, the model itself counted: graph, node, attribute, graph, ..."""
    tags = [0x3A, *[0x0A, 0x2A, 0x32] * messages][: messages - 1]  # graph, node, attribute, g
    return wrapped(b"", *reversed(tags))


def test_a_model_nested_too_deeply_is_refused(found_in):
    assert found_in(nested(MAX_DEPTH)) == frozenset()
    for depth in (MAX_DEPTH + 1, 3000):
        with pytest.raises(BadPackageFile, match="it is no ONNX model"):
            found_in(nested(depth))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(BadPackageFile, match=r'^"absent" in the package: it cannot be read'):
        external_data_files(tmp_path / "absent")
    with pytest.raises(BadPackageFile, match=r'^"a/b" in the package: it cannot be read'):
        external_data_files(tmp_path, "a/b")


# Slow machines may take long now and then; quadratic work would take far longer.
anything_quickly = settings(
    max_examples=300, deadline=timedelta(seconds=5), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check_against_reference(found_in, content):
    """An answer or a refusal; and no model that the onnx library reads has a location we do not see."""
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # protobuf's class depends on its implementation
        model = None
    try:
        found = found_in(content)
    except BadPackageFile:
        return
    if model is not None:
        assert found == reference(model)


@anything_quickly
@given(content=st.binary(max_size=2000))
def test_random_bytes_give_an_answer_or_a_refusal(found_in, content):
    check_against_reference(found_in, content)


@anything_quickly
@given(data=st.data(), make=st.sampled_from([*EXTERNAL, *TINY[:2]]))
def test_a_damaged_model_gives_an_answer_or_a_refusal(found_in, data, make):
    content = bytearray(make().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        cut = data.draw(st.integers(0, 3))
        content[at : at + cut] = data.draw(st.binary(max_size=3))
    check_against_reference(found_in, bytes(content))


@pytest.mark.parametrize("piece", [b"\x3a\x00", b"\x08\x00", b"\x3a\x02\x0a\x00", nested(MAX_DEPTH)])
def test_many_tiny_parts_are_walked_in_little_memory(tmp_path, piece):
    (tmp_path / "model.onnx").write_bytes(piece * ((1 << 17) // len(piece)))
    tracemalloc.start()
    try:
        assert external_data_files(tmp_path / "model.onnx") == frozenset()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# --- packages

WEIGHTS = np.float32(255).tobytes()


def package_with(tmp_path, *locations, listed=(), model_path="model.onnx"):
    """A package whose model keeps weights in `locations`; the manifest lists the files `listed`."""
    model = helper.make_model(graph(initializer=[external(location) for location in locations]))
    folder = make_package(tmp_path / "package", model=model)
    manifest = read_package(folder).manifest
    files = [file for file in manifest.files if file.path != "model.onnx"]
    (folder / "model.onnx").unlink()
    files.append(changed(add_file(folder, model_path, model.SerializeToString()), runtime=OnnxModel()))
    files += [add_file(folder, path, WEIGHTS) for path in listed]
    rewrite_manifest(folder, changed(manifest, files=files))
    return folder


def refusal_of(folder):
    with pytest.raises(BadPackageFile) as refusal:
        verify_files(read_package(folder))
    said = str(refusal.value)
    assert "\n" not in said
    assert len(said) < 300
    return said


@pytest.mark.parametrize(
    ("location", "file", "model"),
    [
        ("w.bin", "w.bin", "model.onnx"),
        ("./w.bin", "w.bin", "model.onnx"),
        ("a//b/./w.bin", "a/b/w.bin", "model.onnx"),
        ("w.bin", "fp16/w.bin", "fp16/model.onnx"),
        ("wä.bin", "wä.bin", "model.onnx"),
    ],
)
def test_weights_that_are_listed_beside_their_model_pass(tmp_path, location, file, model):
    verify_files(read_package(package_with(tmp_path, location, listed=[file], model_path=model)))


def test_weights_that_are_not_listed_are_refused_though_the_file_is_there(tmp_path):
    folder = package_with(tmp_path, "v.bin", "w.bin", listed=["v.bin"])
    (folder / "w.bin").write_bytes(WEIGHTS)
    expected = '"model.onnx" in the package: it keeps weights in "w.bin", which the manifest does not list.'
    assert refusal_of(folder) == expected


def test_locations_are_beside_the_model_and_not_beside_the_manifest(tmp_path):
    folder = package_with(tmp_path, "w.bin", listed=["w.bin"], model_path="fp16/model.onnx")
    expected = '"fp16/model.onnx" in the package: it keeps weights in "w.bin", which the manifest does not list.'
    assert refusal_of(folder) == expected


@pytest.mark.parametrize("location", ["/w.bin", "//w.bin", "../w.bin", "a/../w.bin", "a\\w.bin", "\\\\host\\w.bin"])
def test_locations_that_leave_the_package_or_may_be_read_in_two_ways_are_refused(tmp_path, location):
    folder = package_with(tmp_path, location, listed=["w.bin", "a/w.bin"])
    assert "which is no path inside the package" in refusal_of(folder)


@pytest.mark.parametrize("location", ["", ".", "w.bin\0", "W.BIN", "w.bin/", "a\nb", "a" * 4000, '"'])
def test_every_other_location_must_be_listed(tmp_path, location):
    folder = package_with(tmp_path, location, listed=["v.bin"])
    assert "which the manifest does not list" in refusal_of(folder)


@pytest.mark.parametrize("location", ["*/_ORT_MEM_ADDR_/*", "*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*"])
def test_an_address_in_memory_is_no_location_even_where_a_file_of_that_name_is_listed(tmp_path, location):
    folder = package_with(tmp_path, location, listed=[location])
    assert "which is no path inside the package" in refusal_of(folder)


def test_changed_weights_are_refused_by_their_hash(tmp_path):
    folder = package_with(tmp_path, "w.bin", listed=["w.bin"])
    (folder / "w.bin").write_bytes(np.float32(254).tobytes())
    assert refusal_of(folder).startswith('"w.bin" in the package: its SHA-256 is ')


def test_a_listed_model_that_is_none_is_refused(tmp_path):
    folder = make_package(tmp_path / "package")
    manifest = read_package(folder).manifest
    model = changed(add_file(folder, "model.onnx", b"no model"), runtime=OnnxModel())
    rewrite_manifest(folder, changed(manifest, files=[model, *manifest.files[1:]]))
    assert refusal_of(folder) == NO_MODEL
