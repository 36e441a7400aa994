"""The options of the main job: those that have a meaning of their own, and that no common plug-in has the same."""

import argparse
from dataclasses import replace

import pytest

from bench.session.options import positive, pytest_addoption, training_settings
from models.recipes import RECIPES

OPTIONS_OF_PLUG_INS = {
    "pytest-timeout": "timeout timeout-method timeout-disable-debugger-detection session-timeout",
    "pytest-xdist": "numprocesses maxprocesses max-worker-restart dist loadscope-reorder tx px rsyncdir rsyncignore"
    " testrunuid looponfail",
    "pytest-cov": "cov cov-report cov-config cov-fail-under cov-append cov-branch cov-context no-cov cov-reset"
    " no-cov-on-fail cov-precision",
    "pytest-mock": "mock-traceback-monkeypatch mock-use-standalone-module",
    "pytest-randomly": "randomly-seed randomly-dont-reset-seed randomly-dont-reorganize",
    "pytest-asyncio": "asyncio-mode asyncio-debug",
    "pytest-rerunfailures": "reruns reruns-delay only-rerun rerun-except fail-on-flaky rerun-show-tracebacks"
    " force-reruns",
    "pytest-repeat": "count repeat-scope",
    "pytest-html": "html self-contained-html css",
    "pytest-isolate": "isolate-timeout isolate-mem-limit",
}
"""As their own documentation lists them; `tox run -e oldest` has most of them installed."""


class Options:
    """A parser that only notes."""

    def __init__(self):
        self.names = []

    def getgroup(self, _):
        return self

    def addoption(self, name, **settings):
        self.names += [name.removeprefix("--"), settings.get("dest", name.removeprefix("--"))]


@pytest.mark.parametrize("plug_in", OPTIONS_OF_PLUG_INS)
def test_no_option_is_a_plug_ins(plug_in):
    ours = Options()
    pytest_addoption(ours)
    assert {"device", "cell-timeout", "time-limit"} <= set(ours.names)
    assert not set(ours.names) & set(OPTIONS_OF_PLUG_INS[plug_in].split())


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("10", 10), ("007", 7)])
def test_a_number_above_0_counts(text, number):
    assert positive(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "1e3", " 1", "²", "inf"])
def test_anything_else_is_an_error_that_repeats_it(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number above 0, not") as caught:
        positive(text)
    assert repr(text) in str(caught.value)


def options(**given):
    return argparse.Namespace(**{"network": "lenet", "epochs": None, "quick": False, **given})


def test_a_network_is_trained_at_its_own_settings_unless_others_are_asked_for():
    for network, each in RECIPES.items():
        assert training_settings(options(network=network), 3) == replace(each.settings, seed=3)
        assert training_settings(options(network=network, epochs=2, quick=True), 0) == replace(each.settings, epochs=2)
        assert training_settings(options(network=network, quick=True), 0) == replace(each.settings, epochs=1)
    assert len({each.settings.lr for each in RECIPES.values()}) > 1
