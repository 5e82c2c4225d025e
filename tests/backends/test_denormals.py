"""Numbers below the smallest normal one: what each framework makes of them, asked in a process of its own,
since threads are told when they begin."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import backends
from backends import denormals

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
ASKED = """
import sys
import backends
from backends.base import ModelSpec, Session, Trainable
from backends.optimizers import SGD, Constant

name, *tuning = sys.argv[1:]
session = Session(track="matched", variant="tuned", tuning=tuple(tuning), threads=2)
backend = backends.load(backends.resolve(name))(session)
backend.build(ModelSpec(architecture="resnet18", classes=2, image_size=32))
backend.set_trainable(Trainable(first="head"))
backend.configure_optimizer(SGD(learning_rate=0.1, schedule=Constant()))
print(backend.settings()["denormals"])
"""
FOUND = {"pytorch": "kept", "gluon": "kept", "keras": "flushed"}


@pytest.mark.parametrize("tuning", [(), ("flush-denormals",)], ids=["by itself", "told to flush"])
@pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)
def test_what_a_fresh_process_does(card, tuning):
    if not set(tuning) <= set(card.tuning):
        pytest.skip(f"{card.title} has no switch for it")
    expected = "flushed" if tuning else FOUND[card.name]
    command = [sys.executable, "-c", ASKED, card.name, *tuning]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1:] == [expected], done.stderr


@pytest.mark.once
def test_products_are_below_the_smallest_normal_number():
    products = np.full(8, denormals.NORMAL, np.float32) * np.float32(denormals.FACTOR)
    assert (products < np.finfo(np.float32).tiny).all() and (products > 0).all()


@pytest.mark.once
@pytest.mark.parametrize(
    ("products", "words"),
    [([1e-40, 1e-40], "kept"), ([0.0, 0.0], "flushed"), ([0.0, 1e-40], "flushed by some threads")],
)
def test_in_words(products, words):
    assert denormals.described(np.array(products, np.float32)) == words
