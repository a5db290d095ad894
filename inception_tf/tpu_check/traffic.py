"""What a compiled program reads from a TPU's HBM and writes to it, counted in its text."""

import math
import re

COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\(([^)]*)\)(.*)")
NAME = re.compile(r"%([\w.-]+)")
ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\](?:\{([^}]*)\})?")
CALLED = re.compile(r"calls=%?([\w.-]+)")
# What moves nothing, or what the beginning of a copy has counted; and other names for parts of a buffer.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy-done", "slice-done"}
UNCOUNTED = {"while", "conditional", "call"}  # their computations run once, often or not at all
PARTS = {"slice", "dynamic-slice", "gather"}  # they read what they give of their first operand
UPDATE = "dynamic-update-slice"  # writes its second operand into its first, in place
JOINED = 'custom_call_target="ConcatBitcast"'


def hbm_traffic(text):
    """Bytes that a program moves at least between the chip and its HBM.

    Each instruction of the entry computation reads its operands once and writes its results; of an operand
    that it, or a fusion, takes slices of, it reads those, and of one that it updates a slice of, in place, it
    writes that slice. Loops, branches and calls do not count, nor does what the compiler keeps in the chip's
    own memory, which a layout names as S(1), nor what fills the chip's tiles. XLA's cost analysis, `bytes
    accessed`, makes no difference between memories.

    Args:
        text: of a scheduled HLO module, one computation after the other, the entry last.
    """
    computations = _computations(text)
    *_, entry = computations
    types = {name: _arrays(kind) for name, kind, *_ in computations[entry]}
    total = 0
    for name, _, operation, operands, rest in computations[entry]:
        if operation in FREE or operation in UNCOUNTED or JOINED in rest:
            continue
        results, read = types[name], [types[operand] for operand in operands]
        if operation in ("copy-start", "slice-start"):
            # Both results are listed beside the source; a slice's comes second.
            size, _ = to = results[operation == "slice-start"]
            total += _in_hbm([(size, read[0][0][1]), to])
            continue
        if operation in PARTS:
            read[0] = [(results[0][0], read[0][0][1])]
        elif operation == UPDATE:
            results, read[0] = [(read[1][0][0], results[0][1])], []
        elif operation == "fusion":
            called = CALLED.search(rest).group(1)
            read = [_sliced(computations, called, i, operand) for i, operand in enumerate(read)]
            results = _updated(computations[called], results)
        by_name = dict(zip(operands, read, strict=True))  # an operand that is named twice is read once
        total += _in_hbm([*results, *(array for arrays in by_name.values() for array in arrays)])
    return total


def _computations(text):
    """Dict from a computation's name to its instructions: (name, type, operation, operands, the rest)."""
    computations, current = {}, []
    for line in text.splitlines():
        if match := INSTRUCTION.match(line):
            name, kind, operation, operands, rest = match.groups()
            where = operands if operation == "parameter" else NAME.findall(operands)
            current.append((name, kind, operation, where, rest))
        elif match := COMPUTATION.match(line):
            current = computations.setdefault(match.group(1), [])
    return computations


def _arrays(kind):
    """(bytes, whether they are in HBM) of the arrays of a type."""
    return [
        (int(bits or 8) // 8 * math.prod(int(n) for n in shape.split(",") if n), "S(" not in (layout or ""))
        for _, bits, shape, layout in ARRAY.findall(kind)
    ]


def _in_hbm(arrays):
    return sum(size for size, in_hbm in arrays if in_hbm)


def _sliced(computations, called, number, arrays):
    """What a fusion reads of its operand `number`."""
    if len(arrays) > 1:
        return arrays
    ((size, in_hbm),) = arrays
    return [(min(size, _taken(computations, called, number)), in_hbm)]


def _taken(computations, called, number):
    """Bytes of the slices that a fusion, or one within it, takes of its operand; infinite if it takes all."""
    computation = computations[called]
    (name,) = (each[0] for each in computation if each[2] == "parameter" and each[3] == str(number))
    taken = []
    for reader in computation:
        _, kind, operation, operands, rest = reader
        for place, operand in enumerate(operands):
            if operation == "parameter" or operand != name:
                continue
            if operation == "fusion":
                taken.append(_taken(computations, CALLED.search(rest).group(1), place))
            elif operation in PARTS and place == 0:
                taken.append(_arrays(kind)[0][0])
            else:
                is_in_place = operation == UPDATE and place == 0 and reader is computation[-1]
                taken.append(0 if is_in_place else math.inf)
    return sum(taken) if taken else math.inf


def _updated(computation, results):
    """What a fusion writes of its results."""
    *_, (_, _, operation, operands, _) = computation  # the root comes last
    if operation != UPDATE:
        return results
    (kind,) = (each[1] for each in computation if each[0] == operands[1])
    return [(_arrays(kind)[0][0], results[0][1])]
