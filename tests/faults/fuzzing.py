"""Tests of hostile input run on, guided by coverage: `python -m tests.faults.fuzzing <what> [options of libFuzzer]`.

Atheris has to be there; `test_fuzzing.py` brings it, and runs this. What it finds is an exception that none of these
tests expects; libFuzzer writes the input into a file, which runs again when it is named as an argument.
"""

import sys
from collections.abc import Callable
from typing import Any


def main(what: str) -> None:
    """Run one of the tests for ever, or as the options say."""
    import atheris  # here, since not every platform has it

    with atheris.instrument_imports(include=["nearcache"]):
        from tests.faults import test_hostile as hostile

    def fuzz(test: Any) -> None:
        atheris.Setup(sys.argv, test.hypothesis.fuzz_one_input)
        atheris.Fuzz()

    runs: dict[str, Callable[[], None]] = {
        "records": lambda: fuzz(hostile.test_any_record_is_a_value_or_undecodable),
        "replies": lambda: hostile.any_shape(hostile.Examples, run=fuzz),
        "keys": lambda: fuzz(hostile.test_any_key_is_used_or_refused),
        "templates": lambda: fuzz(hostile.test_any_template_makes_keys_or_is_refused),
        "settings": lambda: fuzz(hostile.test_any_environment_is_settings_or_an_error_that_says_so),
        "urls": lambda: fuzz(hostile.test_any_url_is_one_or_refused),
    }
    runs[what]()


if __name__ == "__main__":
    main(sys.argv.pop(1))
