"""tools/count_instructions.py on machine code of a few lines."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / "tools"

# A loop over groups, with a shorter path for single elements, a loop inside that path, and a call
# for special numbers.
LISTING = """
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @P0  EXIT ;
.L_x_1:
        /*0020*/                   ISETP.NE.AND P1, PT, R2, RZ, PT ;
        /*0030*/              @!P1 BRA `(.L_x_3) ;
.L_x_2:
        /*0040*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0050*/               @P2 BRA `(.L_x_2) ;
        /*0060*/                   BRA `(.L_x_4) ;
.L_x_3:
        /*0070*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0080*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
.L_x_4:
        /*0090*/                   FFMA R4, R4, R4, R5 ;
        /*00a0*/                   FFMA R5, R4, R4, R5 ;
        /*00b0*/                   FADD R6, R4, R5 ;
        /*00c0*/                   MUFU.RCP R6, R6 ;
        /*00d0*/               @P3 BRA `(.L_x_5) ;
        /*00e0*/                   CALL.REL.NOINC `(division) ;
.L_x_5:
        /*00f0*/                   DFMA R8, R8, R8, R8 ;
        /*0100*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*0110*/                   UIADD3 UR4, UR4, 0x1, URZ ;
        /*0120*/                   IMAD.WIDE.U32 R2, R2, R3, R4 ;
        /*0130*/              @!P0 BRA `(.L_x_1) ;
        /*0140*/                   EXIT ;
.text.without_groups:
        /*0000*/                   EXIT ;
"""


@pytest.fixture
def count_instructions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import count_instructions

    return count_instructions


def test_the_way_of_a_whole_group(count_instructions: ModuleType) -> None:
    kernels = count_instructions.kernels(LISTING.splitlines())
    assert list(kernels) == ["kernel", "without_groups"]
    path = count_instructions.group_path(kernels["kernel"])
    assert path == [
        *("ISETP.NE.AND", "BRA", "IADD3", "LDG.E.128"),
        *("FFMA", "FFMA", "FADD", "MUFU.RCP", "BRA"),
        *("DFMA", "STG.E.128", "UIADD3", "IMAD.WIDE.U32", "BRA"),
    ]
    assert count_instructions.kinds(path) == {
        "fp64": 1,
        "fp32": 3,
        "multiply": 1,
        "special": 1,
        "memory": 2,
        "control": 3,
        "uniform": 1,
        "integer": 2,
    }
    assert count_instructions.group_path(kernels["without_groups"]) is None


def test_clocks_are_of_what_takes_longest(count_instructions: ModuleType) -> None:
    clocks = count_instructions.clocks
    kinds = count_instructions.kinds
    assert clocks(kinds(["FFMA"] * 256)) == 2
    assert clocks(kinds(["MUFU.RSQ"] * 32)) == 2
    assert clocks(kinds(["LOP3.LUT"] * 96)) == pytest.approx(1.5)
    assert clocks(kinds(["FFMA"] * 64 + ["LOP3.LUT"] * 64)) == 1
