"""Which images an epoch uses."""

import numpy as np
import numpy.typing as npt
import pytest

from peewit.training.sampler import WHOLE_EPOCHS, HardExamples, epoch_order


def of_losses(losses: npt.ArrayLike, fraction: float = 0.5, batch_size: int = 1) -> HardExamples:
    values = np.asarray(losses, np.float32)
    hard = HardExamples(len(values), fraction, batch_size, seed=0)
    hard.record_losses(np.arange(len(values)), values)
    return hard


def test_the_first_epochs_use_all_images_in_the_usual_order() -> None:
    hard = of_losses(range(20))
    for epoch in range(WHOLE_EPOCHS):
        hard.choose(epoch)
        order, visits = hard.order(epoch)
        assert order.tolist() == epoch_order(0, epoch, 20).tolist()
        assert visits.tolist() == [epoch] * 20


def test_later_epochs_visit_the_hardest_images_several_times() -> None:
    hard = of_losses(range(20), fraction=0.7)
    hard.choose(WHOLE_EPOCHS)
    order, visits = hard.order(WHOLE_EPOCHS)
    assert len(order) == len(visits) == 20
    hardest = list(range(14, 20))
    for first in (0, 6, 12):
        assert sorted(order[first : first + 6]) == hardest
    assert order[:6].tolist() != order[6:12].tolist()
    assert set(order[18:]) <= set(hardest)
    assert (visits - WHOLE_EPOCHS).tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 2
    # the next epoch's visits continue from there, so that each visit is augmented differently
    assert hard.order(WHOLE_EPOCHS + 1)[1][0] == WHOLE_EPOCHS + 4


def test_learned_images_are_replaced_by_others() -> None:
    hard = of_losses([3, 2, 1, 0])
    hard.choose(WHOLE_EPOCHS)
    hard.record_losses(np.array([0, 1]), np.array([0.5, 0.4], np.float32))
    assert set(hard.order(WHOLE_EPOCHS)[0]) == {0, 1}, "the current epoch does not change"
    hard.choose(WHOLE_EPOCHS + 1)
    assert set(hard.order(WHOLE_EPOCHS + 1)[0]) == {2, 0}


@pytest.mark.parametrize(("fraction", "batch_size"), [(0.5, 8), (0.3, 7), (0.9, 30), (0.99, 64)])
def test_no_batch_has_an_image_twice_or_two_visits(fraction: float, batch_size: int) -> None:
    hard = of_losses(np.random.default_rng(0).random(100), fraction, batch_size)
    hard.choose(WHOLE_EPOCHS)
    order, visits = hard.order(WHOLE_EPOCHS)
    for first in range(0, 100, batch_size):
        batch = order[first : first + batch_size]
        assert len(set(batch)) == len(batch)
        assert len(set(visits[first : first + batch_size])) == 1


def test_ties_are_broken_at_random() -> None:
    # sorted by class, the first half would be the first classes alone
    hard = HardExamples(1000, 0.5, batch_size=10, seed=0)
    hard.choose(WHOLE_EPOCHS)
    assert 200 < hard.kept[:500].sum() < 300


def test_fewer_images_than_a_batch_are_all_kept() -> None:
    hard = of_losses(range(5), fraction=0.9, batch_size=8)
    hard.choose(WHOLE_EPOCHS)
    assert sorted(hard.order(WHOLE_EPOCHS)[0]) == [0, 1, 2, 3, 4]
