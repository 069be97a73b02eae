"""What an interpreter has is asked of the interpreter itself."""

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_sdk.interpreter import lacking
from edge_sdk.ops import Op, asking_for, why_lacking
from tests.micro_models import dense_net


def by_the_schema(op):
    """The same question, written by LiteRT's own classes."""
    root, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    root.version, root.subgraphs, root.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors = graph.operators = graph.inputs = graph.outputs = []
    code.builtinCode, code.version = op.code, op.version
    code.deprecatedBuiltinCode = min(op.code, 127)
    root.operatorCodes = [code]
    builder = flatbuffers.Builder(0)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("op", [Op("FULLY_CONNECTED", 9, 12), Op("GELU", 150, 2)])
def test_the_question_is_a_model_as_the_schema_has_it(op):
    assert asking_for(op) == by_the_schema(op)


def test_what_the_runtime_has_not_is_found_out():
    known = [Op("CONV_2D", 3, 3), Op("FULLY_CONNECTED", 9, 4), Op("SOFTMAX", 25, 2)]
    too_new, unheard = Op("FULLY_CONNECTED", 9, 99), Op("OP_250", 250, 1)
    assert lacking(known) == []
    assert lacking([*known, too_new, unheard]) == [too_new, unheard]
    assert "FULLY_CONNECTED in version 99, OP_250" in why_lacking([too_new, unheard])
    assert why_lacking([]) == ""


def test_a_model_that_loads_lacks_nothing():
    from converters.facts import read_facts

    needs = read_facts(dense_net(8)).needs
    assert [op.name for op in needs] == ["FULLY_CONNECTED"]
    assert lacking(needs) == []
