"""Count the instructions of CUDA kernels for an element in their machine code.

It needs nvcc, nvdisasm and c++filt, but no GPU:

    python tools/count_instructions.py normal affine_coupling --kernels 'float, float'

The counted path through a kernel's inner loop is that of a whole group of contiguous elements: the
shortest among the paths with the most accesses of 16 bytes. The counts give the least number of
clocks that a multiprocessor takes for an element.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

CSRC = Path(__file__).parents[1] / "csrc"
#: Kinds of instructions: their opcodes, and the number of threads of a multiprocessor that execute
#: one in a clock. The numbers are those of the CUDA programming guide for compute capability 9.0,
#: or ISSUED where it has none. The first kind that fits counts.
KINDS = {
    "fp64": (re.compile(r"D(ADD|MUL|FMA|SETP|MNMX)"), 64),
    "fp32": (re.compile(r"F(ADD|MUL|FMA)|H(FMA|ADD|MUL)2"), 128),
    "multiply": (re.compile(r"IMAD"), 64),
    "special": (re.compile(r"MUFU|F2F|F2I|I2F(?!P)|FRND|POPC|FLO"), 16),
    "memory": (re.compile(r"LD|ST|SHFL|ATOM|RED"), 32),
    "control": (re.compile(r"BRA|BSSY|BSYNC|EXIT|CALL|RET|BAR|WARPSYNC"), 128),
    "uniform": (re.compile(r"U[A-Z]|R2UR|S2UR"), 128),
    "integer": (re.compile(r""), 64),
}
#: The number of threads for which an instruction of any kind is issued in a clock.
ISSUED = 128

_LABEL = re.compile(r"(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);")
_WIDE = re.compile(r"(LDG|STG)\S*\.128$")
#: Instructions off the path of a whole group: accesses to single elements, and calls.
_DETOUR = re.compile(r"(LDG|STG)(?!\S*\.(128|64)$)|CALL")


@dataclass
class Block:
    """Instructions up to a jump or a label, and the ways to go on from there."""

    label: str | None = None
    opcodes: list[str] = field(default_factory=list)
    target: str | None = None
    goes_on: bool = True


def kernels(listing: Iterable[str]) -> dict[str, list[Block]]:
    """The blocks of each kernel in the output of ``nvdisasm -c``, by its mangled name."""
    found: dict[str, list[Block]] = {}
    blocks: list[Block] = []
    for line in listing:
        if line.startswith(".text."):
            blocks = found[line.strip()[len(".text.") : -1]] = [Block()]
        elif label := _LABEL.match(line):
            blocks.append(Block(label[1]))
        elif instruction := _INSTRUCTION.match(line):
            guard, opcode, operands = instruction.groups()
            block = blocks[-1]
            block.opcodes.append(opcode)
            if opcode.startswith(("BRA", "EXIT", "RET")):
                jump = re.search(r"`\((\.L_x_\d+)\)", operands)
                block.target = jump[1] if jump and opcode.startswith("BRA") else None
                block.goes_on = bool(guard or re.match(r"\s+!?U?P\d", operands) or ".DIV" in opcode)
                blocks.append(Block())
    return found


def group_path(blocks: list[Block]) -> list[str] | None:
    """The instructions on the path of a whole group, or None if no loop has such groups."""
    place = {block.label: i for i, block in enumerate(blocks) if block.label}

    def following(i: int) -> list[int]:
        block = blocks[i]
        jump = [place[block.target]] if block.target in place else []
        return jump + ([i + 1] if block.goes_on and i + 1 < len(blocks) else [])

    wide = [i for i, block in enumerate(blocks) if any(map(_WIDE.match, block.opcodes))]
    # The edges of rows that do not begin at a multiple of a group may be outside the loop.
    loops = [
        (end - start, start, end)
        for end in range(len(blocks))
        for start in following(end)
        if start <= end and sum(start <= i <= end for i in wide) > len(wide) / 2
    ]
    if not loops:
        return None
    _, start, end = min(loops)
    # From each block to the loop's end: accesses, minus length, and the next block.
    best: dict[int, tuple[int, int, int | None]] = {}
    for i in range(end, start - 1, -1):
        opcodes = blocks[i].opcodes
        ways = [(*best[k][:2], k) for k in following(i) if k in best and k > i]
        if i == end:
            ways.append((0, 0, -1))
        if ways:
            accesses, length, k = max(ways)
            detours = sum(1 for opcode in opcodes if _DETOUR.match(opcode))
            best[i] = (
                accesses + sum(1 for opcode in opcodes if _WIDE.match(opcode)),
                length - len(opcodes) - 10000 * detours,
                None if k == -1 else k,
            )
    path: list[str] = []
    here: int | None = start if start in best else None
    while here is not None:
        path += blocks[here].opcodes
        here = best[here][2]
    return path or None


def kinds(opcodes: Iterable[str]) -> Counter[str]:
    """The number of instructions of each kind."""
    return Counter(
        next(name for name, (pattern, _) in KINDS.items() if pattern.match(opcode))
        for opcode in opcodes
    )


def clocks(counts: Counter[str]) -> float:
    """The least number of clocks that a multiprocessor takes for a thread."""
    return max(counts.total() / ISSUED, *(counts[name] / rate for name, (_, rate) in KINDS.items()))


def listing(source: Path, architecture: str) -> list[str]:
    """The machine code of a file of kernels."""
    with tempfile.TemporaryDirectory() as folder:
        unit, binary = Path(folder, "unit.cu"), Path(folder, "unit.cubin")
        unit.write_text(f'#include "{source}"\n')
        options = ["-std=c++17", "-O3", f"-arch={architecture}", "-cubin", "-DBSL_ISA=cuda"]
        folders = [f"-I{CSRC / 'cuda'}", f"-I{CSRC}"]
        subprocess.run(["nvcc", *options, *folders, str(unit), "-o", str(binary)], check=True)
        command = ["nvdisasm", "-c", str(binary)]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.splitlines()


def readable(names: Iterable[str]) -> list[str]:
    """The parts of mangled names that tell kernels apart."""
    command = subprocess.run(
        ["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True
    )
    return [
        re.sub(r"bsl::|\(anonymous namespace\)::|^void |\(\w+\)$", "", name)
        for name in command.stdout.splitlines()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "sources", nargs="+", help="of cuda, pointwise or rows in csrc, without ending"
    )
    parser.add_argument("--kernels", default="", help="a regular expression for their names")
    parser.add_argument("--arch", default="sm_90")
    args = parser.parse_args()
    print(f"| an element's | all | {' | '.join(KINDS)} | clocks |")
    print("|---" * (len(KINDS) + 3) + "|")
    for name in args.sources:
        places = (f"cuda/{name}.cu", f"pointwise/{name}.cpp", f"rows/{name}.cpp")
        (source,) = (path for place in places for path in CSRC.glob(place))
        found = kernels(listing(source, args.arch))
        for kernel, blocks in zip(readable(found), found.values(), strict=True):
            path = group_path(blocks) if re.search(args.kernels, kernel) else None
            if path:
                group, counts = 2 if "double" in kernel else 4, kinds(path)
                each = " | ".join(f"{counts[kind] / group:.1f}" for kind in KINDS)
                total = f"{counts.total() / group:.1f}"
                print(f"| `{kernel}` | {total} | {each} | {clocks(counts) / group:.2f} |")


if __name__ == "__main__":
    main()
