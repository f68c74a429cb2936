"""Fixtures of the tests on real desktops."""

import pytest

from tests.envs.desktop.live_desktop import Editor, boot


@pytest.fixture(scope="module")
def desktop():
    """One desktop for the tests that leave it as it was."""
    sandbox, client = boot()
    yield sandbox, client
    client.close()
    sandbox.close()


@pytest.fixture
def client(desktop):
    return desktop[1]


@pytest.fixture
def own():
    """A desktop of the test's own."""
    sandbox, client = boot()
    yield sandbox, client
    client.close()
    sandbox.close()


@pytest.fixture
def edit(client):
    made = []

    def start(text=""):
        made.append(Editor(client, text))
        return made[-1]

    yield start
    for one in made:
        one.end()
