"""Where the folder for what is kept between runs is."""

from pathlib import Path

from kernels.cache import cache_dir


def test_the_folder_is_the_users_choice_or_the_systems(monkeypatch):
    monkeypatch.setenv("BNBENCH_CACHE", "/mine")
    assert cache_dir() == Path("/mine")
    monkeypatch.delenv("BNBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/bnbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "bnbench"
