"""The ends of a file: names of inputs and outputs, and images with their channels last."""

from __future__ import annotations

from edgeq_converters.write.tfl.emitter import to_first, to_last
from edgeq_converters.write.tfl.file import File, Op

_SAME_AXES = ("QUANTIZE", "DEQUANTIZE")


def name_outputs(file: File) -> None:
    """Give each output's tensor the output's own name, which its codes may have got first, or
    which it has not got because it was there before, seen from another side."""
    names = {file.name(at): at for at in range(len(file.graph.tensors))}
    for name, at in file.outputs.items():
        other = names.get(name)
        if at in file.inputs.values() or other == at:
            continue
        if other is None:
            del names[file.name(at)]
            file.rename(at, name)
        elif other not in file.inputs.values():
            file.swap_names(at, other)
            names[file.name(other)] = other
        else:
            continue
        names[name] = at


def drop_transposes(file: File) -> tuple[str, ...]:
    """Let inputs and outputs of four axes have their channels last where the net has them so;
    returns their names."""
    inputs = [name for name in file.inputs if _turn_input(file, name)]
    return (*inputs, *(name for name in file.outputs if _turn_output(file, name)))


def _is_transpose(file: File, op: Op, order: tuple[int, ...]) -> bool:
    """Whether `op` brings four axes into `order`, by a TRANSPOSE or (sizes of 1) by a RESHAPE."""
    shape = file.shape(op.inputs[0]) if op.inputs else ()
    if len(shape) != 4 or op.code not in ("TRANSPOSE", "RESHAPE"):
        return False
    if file.shape(op.outputs[0]) != tuple(shape[axis] for axis in order):
        return False
    if op.code == "TRANSPOSE":
        return file.numbers_of(op.inputs[1]) == order
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def _turn_input(file: File, name: str) -> bool:
    """Input -> (QUANTIZE ->) TRANSPOSE becomes an input with its channels last; whether it did."""
    at = file.inputs[name]
    chain = [at]
    readers = file.readers(at)
    if len(readers) == 1 and readers[0].code in _SAME_AXES and at not in file.outputs.values():
        chain.append(readers[0].outputs[0])
        readers = file.readers(chain[-1])
    ends = [*chain, *(op.outputs[0] for op in readers)]
    if any(end in file.outputs.values() for end in ends) or not readers:
        return False
    if not all(_is_transpose(file, op, to_last(4)) for op in readers):
        return False
    shape = file.shape(readers[0].outputs[0])
    for link in chain:
        file.set_shape(link, shape)
    for op in readers:
        file.replace(op.outputs[0], chain[-1])
        file.ops.remove(op)
    return True


def _turn_output(file: File, name: str) -> bool:
    """TRANSPOSE (-> DEQUANTIZE) -> output becomes an output with its channels last; whether it
    did."""
    at = file.outputs[name]
    chain = [at]
    maker = file.maker(at)
    if maker is not None and maker.code in _SAME_AXES and not file.readers(at):
        chain.append(maker.inputs[0])
        maker = file.maker(maker.inputs[0])
    if maker is None or not _is_transpose(file, maker, to_first(4)):
        return False
    ends = [*file.inputs.values(), *(end for key, end in file.outputs.items() if key != name)]
    used_elsewhere = len(file.readers(chain[-1])) > len(chain) - 1
    if used_elsewhere or chain[-1] in ends or (len(chain) == 1 and maker.inputs[0] in ends):
        return False
    source = maker.inputs[0]
    file.ops.remove(maker)
    if len(chain) == 1:
        file.outputs[name] = source
        return True
    file.set_shape(at, file.shape(source))
    file.replace(chain[-1], source)
    return True
