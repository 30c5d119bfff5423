"""What a compiled program moves: the text of optimized HLO, read with the trip counts of its loops.

XLA's own cost analysis counts the body of a loop once, however often it runs.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16, 'f16': 16, 'c64': 64, 'c128': 128}
_SHAPE = re.compile(r'\b(pred|bf16|[suf]\d+|f8\w+|c64|c128)\[([\d,]*)\](?:\{([^}]*)\})?')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = (.*)')
_OPCODE = re.compile(r'\s*([\w\-]+)\(')
_HEADER = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')

# These move nothing: they name, group or await what others have moved.
_FREE = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'iota', 'after-all', 'while',
    'conditional', 'call', 'opt-barrier', 'partition-id', 'replica-id', 'custom-call',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation, as often as a step runs it.

    Attributes:
        kind: one of COLLECTIVES.
        count: times a step.
        bytes: of its result on a device, each time.
        sent: bytes that a device sends each time, by the ring algorithm.
        group: devices that take part together.
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
    """A compiled program, from the text that `compiled.as_text()` gives."""

    def __init__(self, text: str) -> None:
        """Raises ValueError where the text has no entry."""
        self._computations, entry = _parse(text)
        if entry is None:
            raise ValueError('This is no HLO module: it has no ENTRY computation.')
        self._run = list(self._visit(entry, 1))

    def collectives(self) -> list[Collective]:
        """All that a step runs, those of the most bytes first.

        What XLA splits into pieces, to run them beside other operations in and around a loop, is one.
        """
        found: dict[str, Collective] = {}
        for name, times in self._run:
            for instruction in self._with_fused(name):
                kind = instruction.opcode.removesuffix('-start')
                if kind not in COLLECTIVES:
                    continue
                channel = re.search(r'channel_id=(\d+)', instruction.rest)
                key = f'{kind} {channel[1]}' if channel else f'{name} {instruction.name}'
                collective = self._collective(instruction, kind, times)
                if key not in found or collective.count < found[key].count:
                    found[key] = collective
        return sorted(found.values(), key=lambda c: -c.count * c.bytes)

    def memory_traffic(self) -> int:
        """Bytes that a step reads from and writes to main memory: each operation's inputs and results.

        What lies in on-chip memory is not counted, nor what a fusion keeps to itself. Of what is
        only sliced, or only updated in a part, the part is counted.
        """
        return sum(
            times * self._traffic(instruction, name)
            for name, times in self._run
            for instruction in self._computations[name]
        )

    def _visit(self, name: str, times: int) -> Iterator[tuple[str, int]]:
        """The computations that are run for themselves, and how often."""
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
        known = re.search(r'known_trip_count\D+(\d+)', loop.rest)
        if known:
            return int(known[1])
        # The compiler for TPUs doesn't say: a loop over layers counts from 0 up to a constant.
        bounds = [
            int(found[1])
            for instruction in self._computations[condition]
            if instruction.opcode == 'constant'
            and (found := re.match(r'(\d+)', ','.join(instruction.operands)))
        ]
        return max(bounds, default=1)

    def _with_fused(self, name: str) -> Iterator[_Instruction]:
        for instruction in self._computations[name]:
            yield instruction
            for called in _called(instruction.rest, 'calls'):
                yield from self._with_fused(called)

    def _collective(self, instruction: _Instruction, kind: str, times: int) -> Collective:
        shapes = [size for size, _ in _sizes(instruction.shape)]
        if instruction.opcode.endswith('-start') and len(shapes) > 1:
            shapes = shapes[len(shapes) // 2 :]  # operands, then results
        size, group = sum(shapes), _group(instruction.rest)
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

    def _traffic(self, instruction: _Instruction, name: str) -> int:
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith('-done'):
            return 0
        shapes = {other.name: other for other in self._computations[name]}
        results = _in_memory(instruction.shape)
        if opcode == 'slice-start':  # (operand, result, context)
            part, in_memory = _sizes(instruction.shape)[1]
            return part * (1 + in_memory)
        if opcode.endswith('-start'):  # the same, or (result, operand, context)
            return sum(results)
        if opcode == 'dynamic-slice':
            return 2 * sum(results)
        if opcode == 'dynamic-update-slice':
            update = shapes.get(instruction.operands[1])
            return 2 * sum(_in_memory(update.shape)) if update else sum(results)
        inputs = [shapes[operand].shape for operand in instruction.operands if operand in shapes]
        if opcode == 'fusion' and (called := _called(instruction.rest, 'calls')):
            return self._fusion_traffic(called[0], inputs, sum(results))
        return sum(results) + sum(sum(_in_memory(shape)) for shape in inputs)

    def _fusion_traffic(self, called: str, inputs: list[str], written: int) -> int:
        inside = self._computations[called]
        total = 0
        for instruction in inside:
            if instruction.opcode != 'parameter':
                continue
            number = int(instruction.operands[0]) if instruction.operands else 0
            outer = sum(_in_memory(inputs[number])) if number < len(inputs) else 0
            users = [other for other in inside if instruction.name in other.operands]
            if outer and users and all(user.opcode in ('dynamic-slice', 'slice', 'gather') for user in users):
                outer = min(outer, sum(size for user in users for size, _ in _sizes(user.shape)))
            elif (
                outer
                and users
                and all(
                    user.opcode == 'dynamic-update-slice' and user.operands[0] == instruction.name
                    for user in users
                )
            ):
                updates = {other.name: other.shape for other in inside}
                outer = sum(size for user in users for size, _ in _sizes(updates[user.operands[1]]))
                # The rest of the result is the input, where it was.
                written -= sum(size for user in users for size, _ in _sizes(user.shape)) - outer
            total += outer
        return total + max(0, written)


def _parse(text: str) -> tuple[Computations, str | None]:
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
    """Just behind the parenthesis that closes the one that the text begins with."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == '(') - (character == ')')
        if not depth:
            return i + 1
    return len(text)


def _called(rest: str, key: str) -> list[str]:
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


def _in_memory(shape: str) -> list[int]:
    return [size for size, in_memory in _sizes(shape) if in_memory]


def _group(rest: str) -> int:
    """How many devices take part together; the text has three ways to say it."""
    if mesh := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(axes[name] for name in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r'replica_groups=\[\d+,(\d+)\]<=', rest):
        return int(iota[1])
    if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', rest):
        return len(listed[1].split(','))
    return 2
