from __future__ import annotations

import hashlib

from flashmotion_jax.runtime.hashing import file_sha256


def test_files_are_hashed_one_after_the_other(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x" * (2**20 + 1))
    second.write_bytes(b"y")
    assert file_sha256(first) == hashlib.sha256(first.read_bytes()).hexdigest()
    both = first.read_bytes() + second.read_bytes()
    assert file_sha256(first, second) == hashlib.sha256(both).hexdigest()
