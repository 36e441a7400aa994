"""What the system says of the processor's caches, as Linux writes it."""

import pytest

from kernels import processor
from kernels.processor import Cache


@pytest.fixture
def said(monkeypatch, tmp_path):
    """The cache that is found where the system says this of each: its size, and a mask of who shares it."""

    def said(*caches):
        for number, (size, shared_by) in enumerate(caches):
            folder = tmp_path / f"index{number}"
            folder.mkdir()
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_map").write_text(f"{shared_by}\n")
        monkeypatch.setattr(processor, "_CACHES", tmp_path)
        return processor.last_level_cache.__wrapped__()

    return said


def test_the_last_level_cache_is_the_largest(said):
    assert said(("32K", "3"), ("1M", "3"), ("32768K", "00000000,0000ffff")) == Cache(32 << 20, 16)


@pytest.mark.parametrize("caches", [(), (("", "3"),), (("32K", "all"),)])
def test_where_the_system_does_not_say_there_is_none(said, caches):
    assert said(*caches) is None


def test_kernels_are_told_of_it(monkeypatch):
    from kernels.cpu_fused import library

    monkeypatch.setattr(processor, "last_level_cache", lambda: Cache(1 << 20, 4))
    assert library._cache_flags() == ("-DCACHE_BYTES=1048576", "-DCACHE_PROCESSORS=4")
    monkeypatch.setattr(processor, "last_level_cache", lambda: None)
    assert library._cache_flags() == ()
