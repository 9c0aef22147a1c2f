"""Random calls, arguments, models and files, and the checks of each (docs/testing.md).

A case is a frozen dataclass of plain values. Its ``check()`` raises if something is wrong and
returns False if the library refused the case by an error that names an argument. Its ``repr`` is a
line of Python that makes it again.
"""
