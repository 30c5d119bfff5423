"""What a compiled program moves, read from the text of its optimized HLO, with the trip counts of loops.

XLA's own cost analysis counts the body of a loop once, however often it runs.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16, 'f16': 16, 'c64': 64, 'c128': 128}
_SHAPE = re.compile(r'\b(pred|bf16|[suf]\d+|f8\w+|c64|c128)\[([\d,]*)\](?:\{([^}]*)\})?')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = (.*)')
_OPCODE = re.compile(r'\s*([\w\-]+)\(')
_HEADER = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')

# Custom calls that run kernels: cuBLAS and cuDNN, Triton, Mosaic.
_KERNELS = ('__cublas', '__cudnn', '__triton', 'tpu_custom_call', 'mosaic')

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')

# These move no bytes: they name or group arrays, or wait for other operations.
_FREE = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'iota', 'after-all', 'while',
    'conditional', 'call', 'opt-barrier', 'partition-id', 'replica-id',
}  # fmt: skip

# Of their first operand these read a part.
_SLICES = ('dynamic-slice', 'slice', 'gather')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a step.

    Attributes:
        kind: one of COLLECTIVES.
        count: how often a step runs it.
        bytes: size of its result on a device, each time.
        sent: bytes that a device sends each time, by the ring algorithm.
        group: number of devices that take part together.
        where: the name of the operation in the model.
    """

    kind: str
    count: int
    bytes: int
    sent: float
    group: int
    where: str


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # attributes
    is_root: bool


Computations = Mapping[str, tuple[_Instruction, ...]]


class Hlo:
    """A compiled program, read from the text of `compiled.as_text()`."""

    def __init__(self, text: str) -> None:
        """Raises ValueError if the text has no ENTRY computation."""
        self._computations, entry = _parse(text)
        if entry is None:
            raise ValueError('This is no HLO module: it has no ENTRY computation.')
        self._runs = list(self._visit(entry, 1))  # (computation, how often)

    def collectives(self) -> list[Collective]:
        """All collectives that a step runs, those that move the most bytes first.

        XLA splits some into pieces, to run them beside other operations in and around a loop. The pieces
        share a channel and count as one.
        """
        found: dict[str, Collective] = {}
        for name, times in self._runs:
            for instruction in self._with_fused(name):
                kind = instruction.opcode.removesuffix('-start')
                if kind not in COLLECTIVES:
                    continue
                channel = re.search(r'channel_id=(\d+)', instruction.rest)
                key = f'{kind} {channel[1]}' if channel else f'{name} {instruction.name}'
                collective = _collective(instruction, kind, times)
                if key not in found or collective.count < found[key].count:
                    found[key] = collective
        return sorted(found.values(), key=lambda c: -c.count * c.bytes)

    def memory_traffic(self) -> int:
        """Bytes that a step reads from main memory and writes to it: the inputs and results of operations.

        On-chip memory is not counted, nor what a fusion keeps to itself. Of an array that is only sliced,
        or only updated in a part, the part is counted.
        """
        return sum(
            times * self._traffic(instruction, name)
            for name, times in self._runs
            for instruction in self._computations[name]
        )

    def _visit(self, name: str, times: int) -> Iterator[tuple[str, int]]:
        """The computations that run on their own, not inside a fusion, and how often each runs."""
        yield name, times
        for instruction in self._computations[name]:
            if instruction.opcode == 'while':
                condition, body = (_called(instruction.rest, key)[0] for key in ('condition', 'body'))
                yield from self._visit(body, times * self._trips(instruction, condition))
            elif instruction.opcode in ('call', 'conditional'):
                for key in ('to_apply', 'branch_computations', 'true_computation', 'false_computation'):
                    for called in _called(instruction.rest, key):
                        yield from self._visit(called, times)

    def _trips(self, loop: _Instruction, condition: str) -> int:
        """How often the body of a loop runs."""
        known = re.search(r'known_trip_count\D+(\d+)', loop.rest)
        if known:
            return int(known[1])
        # The TPU compiler does not say. A loop over layers counts from 0 up to a constant in its condition.
        bounds = [
            int(found[1])
            for instruction in self._computations[condition]
            if instruction.opcode == 'constant'
            and (found := re.match(r'(\d+)', ','.join(instruction.operands)))
        ]
        return max(bounds, default=1)

    def _with_fused(self, name: str) -> Iterator[_Instruction]:
        """The instructions of a computation, and of the fusions in it."""
        for instruction in self._computations[name]:
            yield instruction
            for called in _called(instruction.rest, 'calls'):
                yield from self._with_fused(called)

    def _traffic(self, instruction: _Instruction, computation: str) -> int:
        """Bytes that one operation of a computation reads and writes, each time that it runs."""
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith('-done') or _is_mark(instruction):
            return 0
        results = _in_memory(instruction.shape)
        if opcode == 'slice-start':  # its shape is (operand, result, context)
            part, in_memory = _sizes(instruction.shape)[1]
            return part * (1 + in_memory)
        if opcode == 'fusion-start':  # its shape is (operands, results, context)
            results = _in_memory(_results_of_start(instruction.shape))
        elif opcode.endswith('-start'):  # its shape has the operand as well as the result
            return results
        if opcode == 'dynamic-slice':
            return 2 * results
        shapes = {other.name: other.shape for other in self._computations[computation]}
        if opcode == 'dynamic-update-slice':
            update = shapes.get(instruction.operands[1])
            return 2 * _in_memory(update) if update else results
        inputs = [shapes[operand] for operand in instruction.operands if operand in shapes]
        if opcode == 'custom-call':
            results = _in_memory(_without_workspace(instruction.shape))
        if opcode in ('fusion', 'fusion-start') and (fused := _called(instruction.rest, 'calls')):
            return self._fusion_traffic(fused[0], inputs, results)
        return results + sum(map(_in_memory, inputs))

    def _fusion_traffic(self, fused: str, inputs: list[str], written: int) -> int:
        """Bytes that a fusion reads and writes.

        Args:
            fused: the computation that the fusion runs.
            inputs: shapes of the fusion's operands, by the numbers of the computation's parameters.
            written: bytes of the fusion's results in main memory.
        """
        inside = self._computations[fused]
        read = 0
        for parameter in inside:
            if parameter.opcode == 'parameter':
                reads, stays = _parameter_traffic(parameter, inputs, inside)
                read, written = read + reads, written - stays
        return read + max(0, written)


def _collective(instruction: _Instruction, kind: str, times: int) -> Collective:
    sizes = [size for size, _ in _sizes(instruction.shape)]
    if instruction.opcode.endswith('-start') and len(sizes) > 1:
        sizes = sizes[len(sizes) // 2 :]  # operands come first, then results
    size, group = sum(sizes), _group(instruction.rest)
    others = (group - 1) / group
    sent = {
        'all-gather': size * others,
        'all-reduce': 2 * size * others,
        'reduce-scatter': size * (group - 1),
        'all-to-all': size * others,
        'collective-permute': float(size),
    }[kind]
    where = re.search(r'op_name="([^"]*)"', instruction.rest)
    return Collective(kind, times, size, sent, group, where[1] if where else '')


def _parameter_traffic(
    parameter: _Instruction, inputs: list[str], inside: tuple[_Instruction, ...]
) -> tuple[int, int]:
    """Bytes that a fusion reads of one input, and bytes of its result that are that input, unchanged."""
    number = int(parameter.operands[0]) if parameter.operands else 0
    whole = _in_memory(inputs[number]) if number < len(inputs) else 0
    names, users = _uses(parameter, inside)
    if not whole or not users:
        return whole, 0
    shapes = {other.name: other.shape for other in inside}
    read = stays = 0
    for user in users:
        if user.opcode in _SLICES and user.operands[0] in names:
            read += _all_bytes([user.shape])
        elif user.opcode == 'dynamic-update-slice' and user.operands[0] in names:
            stays += _all_bytes([user.shape]) - _all_bytes([shapes[user.operands[1]]])
        else:
            return whole, 0
    return min(whole, read), stays


def _uses(parameter: _Instruction, inside: tuple[_Instruction, ...]) -> tuple[set[str], list[_Instruction]]:
    """A parameter's names, with those of its bitcasts, and the operations that use it under any of them."""
    names, users = {parameter.name}, []
    for other in inside:  # in the order in which they are computed
        if names.isdisjoint(other.operands):
            continue
        if other.opcode == 'bitcast':
            names.add(other.name)
        else:
            users.append(other)
    return names, users


def _is_mark(instruction: _Instruction) -> bool:
    """Whether a custom call only tells the compiler something; libraries' and Triton's kernels move data."""
    if instruction.opcode != 'custom-call':
        return False
    target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
    return target is None or not target[1].startswith(_KERNELS)


def _without_workspace(shape: str) -> str:
    """The results of a library's kernel, without the bytes that it takes as a workspace."""
    return re.sub(r'\b[su]8\[\d*\](\{[^}]*\})?\)$', ')', shape)


def _results_of_start(shape: str) -> str:
    """The results in a shape of (operands, results, context)."""
    return re.sub(r', u32\[\]\)$', '', shape[1 + _closing(shape[1:]) :])


def _parse(text: str) -> tuple[Computations, str | None]:
    """The computations by name, and the name of the entry."""
    computations: dict[str, tuple[_Instruction, ...]] = {}
    entry, name, instructions = None, '', list[_Instruction]()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, instructions = header[2], []
            entry = name if header[1] else entry
        elif line.startswith('}'):
            computations[name] = tuple(instructions)
        elif found := _INSTRUCTION.match(line):
            instructions.append(_instruction(found[2], found[3], is_root=bool(found[1])))
    return computations, entry


def _instruction(name: str, text: str, *, is_root: bool) -> _Instruction:
    end = _closing(text) if text.startswith('(') else text.index(' ')
    shape, text = text[:end], text[end:]
    opcode = _OPCODE.match(text)
    if opcode is None:
        raise ValueError(f'An HLO instruction without an opcode: {name} = {text[:80]}')
    text = text[opcode.end() - 1 :]
    end = _closing(text)
    names = re.findall(r'%([\w.\-]+)', text[:end]) or [part.strip() for part in text[1 : end - 1].split(',')]
    return _Instruction(name, shape, opcode[1], tuple(filter(None, names)), text[end:], is_root)


def _closing(text: str) -> int:
    """The index after the parenthesis that closes the one at the start of the text."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == '(') - (character == ')')
        if not depth:
            return i + 1
    return len(text)


def _called(rest: str, key: str) -> list[str]:
    """The computations that an instruction's attribute of this name refers to."""
    found = re.search(rf'\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)', rest)
    return re.findall(r'[\w.\-]+', found[1]) if found else []


def _sizes(shape: str) -> list[tuple[int, bool]]:
    """(bytes, whether it is in main memory) of each array of a shape."""
    sizes = []
    for dtype, dimensions, layout in _SHAPE.findall(shape):
        digits = re.search(r'\d+', dtype)
        bits = _BITS.get(dtype) or int(digits[0] if digits else 8)
        elements = math.prod(int(n) for n in dimensions.split(',') if n)
        sizes.append((elements * bits // 8, 'S(' not in layout))
    return sizes


def _in_memory(shape: str) -> int:
    """Bytes of the shape's arrays that are in main memory."""
    return sum(size for size, in_memory in _sizes(shape) if in_memory)


def _all_bytes(shapes: Iterable[str]) -> int:
    """Bytes of all arrays of the shapes, wherever they are."""
    return sum(size for shape in shapes for size, _ in _sizes(shape))


def _group(rest: str) -> int:
    """How many devices take part together. The text has three ways to say it."""
    if mesh := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(axes[name] for name in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r'replica_groups=\[\d+,(\d+)\]<=', rest):
        return int(iota[1])
    if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', rest):
        return len(listed[1].split(','))
    return 2
