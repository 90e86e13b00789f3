"""The conformance suite for backends: what ``gently_bluesky.backends.base`` says, as tests.

Subclass it in a test module of yours and say which backend it is about; every declared capability is tested,
and what is not declared is skipped::

    from gently_bluesky.testing.backends import BackendConformance

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def backend(self):
            return MyBackend()

Needs pytest and hypothesis. Put ``pytest.register_assert_rewrite("gently_bluesky.testing")`` into
your ``conftest.py`` to see values in failures. Override no test: a backend that cannot pass one declares
less.
"""

from __future__ import annotations

from gently_bluesky.testing.assets import array_spec, full, selections, write_asset
from gently_bluesky.testing.backend_inspecting import InspectingConformance
from gently_bluesky.testing.backend_reading import ReadingConformance
from gently_bluesky.testing.backend_writing import WritingConformance

__all__ = ["BackendConformance", "array_spec", "full", "selections", "write_asset"]


class BackendConformance(WritingConformance, ReadingConformance, InspectingConformance):
    """Every backend passes all of these, as far as its ``capabilities`` go."""
