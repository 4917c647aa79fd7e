"""The cases of a comparison: drawn images always, photographs where there is a corpus."""

from pathlib import Path

import pytest

from bench.images import IMAGES
from bench.tools.comparison_cases import CASES, CORPUS_VARIABLE, QUICK
from bench.tools.comparison_targets import EQUAL_RESULTS, OVER_BEST_PEER, OVER_ORIGINAL

PHOTOGRAPHS = [name for name, case in CASES.items() if case.photograph]


def test_drawn_images_are_never_missing() -> None:
    for name, case in CASES.items():
        if name not in PHOTOGRAPHS:
            assert case.image in IMAGES
            assert case.missing() is None


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_used_where_the_corpus_is(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = CASES[name]
    monkeypatch.setenv(CORPUS_VARIABLE, str(tmp_path))
    path = tmp_path / case.image
    assert case.missing() == f"no {path}: set {CORPUS_VARIABLE} to the corpus"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert case.missing() is None
    assert case.request().image == path


def test_the_targets_and_the_quick_cases_are_of_known_cases() -> None:
    assert {*OVER_BEST_PEER, *OVER_ORIGINAL, *EQUAL_RESULTS, *QUICK} <= set(CASES)
