"""What tells one machine from another."""

from __future__ import annotations

import cpuinfo
import pytest

from benchmarks.harness import environment

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (
            {"brand_raw": "AMD EPYC", "family": 25, "model": 1, "flags": ["avx", "avx2", "fma"]},
            "AMD EPYC (family 25, model 1, AVX2)",
        ),
        (
            {"brand_raw": "AMD EPYC", "family": 25, "model": 17, "flags": ["avx", "avx2", "avx512f"]},
            "AMD EPYC (family 25, model 17, AVX-512)",
        ),
        ({"brand_raw": "Apple M2"}, "Apple M2"),
        ({"brand_raw": "Neoverse-V1", "flags": ["asimd", "sve"]}, "Neoverse-V1 (SVE)"),
    ],
)
def test_processors_that_a_virtual_machine_calls_the_same_have_names_of_their_own(monkeypatch, found, name):
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: found)
    assert environment.cpu_name.__wrapped__() == name


def test_this_machine_s_has_one():
    assert environment.cpu_name()


def test_variables_that_figures_depend_on_are_kept_and_no_others(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", "/somebody/.terraformrc")
    found = environment.describe(threads=1, load=0.0).variables
    assert found["TF_ENABLE_ONEDNN_OPTS"] == "0" and "TF_CLI_CONFIG_FILE" not in found
