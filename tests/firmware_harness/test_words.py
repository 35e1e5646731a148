"""gruard_describe(): a record in words, in any buffer, for any numbers."""

import ctypes
import subprocess
from pathlib import Path

import pytest
from harness_command import harness
from hypothesis import given
from hypothesis import strategies as st
from uart_sensor import SENTENCE

SHIM = """
#include "gruard_detector.h"
#include "gruard_words.h"
void describe(float score, float threshold, int tier, int alarm, int valid, int blamed, char *out,
              size_t size) {
    static gruard_model model;
    static gruard_detector detector;
    detector.model = &model;
    detector.threshold = tier == 3 ? -1.0f : threshold;
    model.fallback_threshold = tier == 3 ? threshold : -1.0f;
    const gruard_record record = {.score = score, .tier = (uint8_t)tier, .alarm = (uint8_t)alarm,
                                  .valid = (uint8_t)valid, .blamed = {(int16_t)blamed, -1, -1}};
    gruard_describe(&detector, &record, out, size);
}
"""
NUMBER = st.floats(-3e6, 3e6, width=32)
CHANNELS = ["set_point", "flow", "heat"]


@pytest.fixture(scope="module")
def words(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("words")
    assert harness("emit", tiny_bundle, "--out", folder / "sources").returncode == 0
    (folder / "shim.c").write_text(SHIM)
    sources = [folder / "sources" / f"gruard_{part}.c" for part in ("words", "blob")]
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    out = folder / "words.so"
    include = f"-I{folder / 'sources'}"
    subprocess.run([*command, include, folder / "shim.c", *sources, "-o", out], check=True)
    return ctypes.CDLL(str(out))


def described(words: ctypes.CDLL, size: int, score: float, threshold: float, *rest: int) -> str:
    """What is written into `size` bytes; the bytes after them must be left alone."""
    buffer = ctypes.create_string_buffer(b"#" * (size + 8), size + 8)
    numbers = (ctypes.c_float(score), ctypes.c_float(threshold), *rest)
    words.describe(*numbers, buffer, ctypes.c_size_t(size))
    assert buffer.raw[size:] == b"#" * 8
    return buffer.raw[:size].split(b"\0")[0].decode() if size else ""


@given(
    score=NUMBER, threshold=NUMBER, tier=st.integers(1, 3), alarm=st.integers(0, 1),
    valid=st.integers(0, 1), blamed=st.integers(-1, 2), size=st.integers(0, 160),
)  # fmt: skip
def test_a_sentence_says_the_record_and_fits(
    words: ctypes.CDLL, score: float, threshold: float, tier: int, alarm: int, valid: int,
    blamed: int, size: int,
) -> None:  # fmt: skip
    rest = (tier, alarm, valid, blamed)
    sentence = described(words, 160, score, threshold, *rest)
    found = SENTENCE.fullmatch(sentence)
    assert found, sentence
    assert (found["alarm"] == "ALARM") == bool(alarm)
    assert (found["unsure"] is None) == bool(valid)
    assert found["blamed"] == (CHANNELS[blamed] if alarm and blamed >= 0 else None)
    for name, number in (("score", score), ("threshold", threshold)):
        assert abs(float(found[name]) - number) <= 0.0006 + 2e-7 * abs(number)
    assert (found["side"] == "over") == (score > threshold)
    assert described(words, size, score, threshold, *rest) == sentence[: max(size - 1, 0)]


def test_a_score_that_is_absurd_is_still_a_number(words: ctypes.CDLL) -> None:
    for score in (3e38, float("inf"), float("nan")):
        assert SENTENCE.fullmatch(described(words, 160, score, 1.0, 1, 0, 1, -1))
