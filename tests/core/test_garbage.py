"""While steps run, Python looks for garbage seldom, and as usual after the last of them."""

import gc

from feedamp.steps.garbage import OBJECTS_PER_COLLECTION, collected_seldom


def test_the_last_step_of_a_process_gives_back_the_garbage_collector() -> None:
    before = gc.get_threshold()
    first, second = collected_seldom(), collected_seldom()
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
        assert gc.get_threshold()[0] == OBJECTS_PER_COLLECTION
    assert gc.get_threshold() == before
