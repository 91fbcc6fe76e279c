"""Selection inside the training set, weighting and thinning: leaks planted, formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import cross_val_predict
from sklearn.utils.class_weight import compute_class_weight

from actionvit.heads.base import Head
from actionvit.heads.linear import LinearProbe
from actionvit.heads.nearest import KNNProbe
from actionvit.heads.selection import assign_folds, grid_search
from actionvit.heads.weighting import class_weights, log_prior, sampling_rates
from actionvit.pipeline.probing.subsets import few_shot, long_tail, long_tail_counts


def films(*, per_film: int = 4, per_class: int = 15, classes: int = 6, d: int = 30, seed: int = 0):
    """Clips of one film are nearly copies; the class is a weak signal across films. Another seed draws other films."""
    rng = np.random.default_rng(seed)
    film = np.arange(classes * per_class * per_film) // per_film
    y = film // per_class
    means = 0.8 * np.random.default_rng(99).normal(size=(classes, d))
    X = (means[y] + rng.normal(size=(film.max() + 1, d))[film] * 2 + 0.05 * rng.normal(size=(len(film), d))).astype(
        "f4"
    )
    return X, y, film


def test_only_selection_by_source_resists_a_planted_leak() -> None:
    """Each validation clip has a copy in training: nearest neighbors solve folds by clip, but not new films."""
    X, y, film = films()
    fresh, truth, _ = films(per_class=200, seed=1)
    grid = {"k": [1, 3, 30], "temperature": [0.3]}
    by_clip = grid_search(KNNProbe(), X, y, grid=grid)
    by_film = grid_search(KNNProbe(), X, y, grid=grid, groups=film)
    assert by_clip.best_params["k"] < 30
    assert by_clip.record["scores"][by_clip.record["values"].index(by_clip.record["chosen"])] > 0.99
    assert by_film.best_params["k"] == 30
    at_clip, at_film = by_clip.head.score(fresh, truth), by_film.head.score(fresh, truth)
    assert at_film > at_clip
    assert max(by_film.record["scores"]) == pytest.approx(at_film, abs=0.1)  # honest
    assert max(by_clip.record["scores"]) > at_clip + 0.3  # not


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_keep_sources_together_and_classes_apart_evenly(folds) -> None:
    rng = np.random.default_rng(0)
    film = np.repeat(np.arange(120), rng.integers(1, 9, 120))
    y = rng.integers(0, 6, 120)[film]
    fold = assign_folds(y, film, folds=folds, seed=0)
    assert all(len(set(fold[film == one])) == 1 for one in range(120))
    for one in range(6):
        counts = np.bincount(fold[y == one], minlength=folds)
        assert counts.max() - counts.min() <= 8  # the largest film
    np.testing.assert_array_equal(fold, assign_folds(y, film, folds=folds, seed=0))
    assert np.any(fold != assign_folds(y, film, folds=folds, seed=1))


def test_folds_without_sources_hold_equal_shares_of_each_class() -> None:
    y = np.repeat(np.arange(4), [10, 20, 30, 41])
    fold = assign_folds(y, None, folds=5, seed=3)
    for one, count in enumerate([10, 20, 30, 41]):
        counts = np.bincount(fold[y == one], minlength=5)
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == count


def test_folds_need_two_groups() -> None:
    with pytest.raises(ValueError, match="folds: got 5 for 1 groups"):
        assign_folds([0, 1, 0], ["a", "a", "a"], folds=5, seed=0)


class Spy(Head):
    """Remembers which rows it was given; predicts at random."""

    seen: list[tuple[set[float], set[float]]]

    def __init__(self, knob: int = 0) -> None:
        self.knob = knob

    def fit(self, X, y):
        X, _ = self._training_data(X, y)
        self.trained_ = set(X[:, 0].tolist())
        return self

    def predict_log_proba(self, X):
        X = self._test_data(X)
        Spy.seen.append((self.trained_, set(X[:, 0].tolist())))
        return np.full((len(X), len(self.classes_)), -np.log(len(self.classes_)))


def test_no_setting_is_tried_on_rows_of_a_film_it_was_trained_on() -> None:
    X, y, film = films()
    X[:, 0] = np.arange(len(X))
    Spy.seen = []
    found = grid_search(Spy(), X, y, grid={"knob": [1, 2, 3]}, groups=film)
    assert len(Spy.seen) == 15
    for trained, held in Spy.seen:
        assert not {film[int(row)] for row in trained} & {film[int(row)] for row in held}
    assert set.union(*(held for _, held in Spy.seen)) == set(range(len(X)))
    assert found.head.trained_ == set(range(len(X)))


def test_out_of_fold_predictions_are_scikit_learns() -> None:
    X, y, film = films()
    found = grid_search(LinearProbe(), X, y, grid={"C": [1e-3]}, groups=film)
    fold = assign_folds(y, film, folds=5, seed=0)
    splits = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(5)]
    expected = cross_val_predict(LinearProbe(C=1e-3), X, y, cv=splits, method="predict_proba")
    np.testing.assert_allclose(np.exp(found.out_of_fold), expected, atol=5e-3)
    assert found.record["scores"] == [pytest.approx(np.mean(np.exp(found.out_of_fold).argmax(axis=1) == y), abs=1e-6)]


def test_the_search_says_what_was_tried_and_warns_of_an_edge() -> None:
    X, y, film = films()
    found = grid_search(LinearProbe(), X, y, grid={"C": [1e-5, 1e-4, 1e-3]}, groups=film, criterion="log_loss")
    search = found.record
    assert search["parameter"] == "C"
    assert search["values"] == [1e-5, 1e-4, 1e-3]
    assert len(search["scores"]) == 3
    assert search["chosen"] == found.best_params["C"] == found.head.C
    assert search["scores"].index(max(search["scores"])) == search["values"].index(search["chosen"])
    assert search["at_edge"] == (["C"] if search["chosen"] in (1e-5, 1e-3) else [])
    assert (search["by"], search["folds"], search["scored"]) == ("source", 5, len(y))
    edge = grid_search(LinearProbe(), X, y, grid={"C": [1e-9, 1e-7, 1e-4]}, groups=film, criterion="log_loss")
    assert (edge.best_params, edge.record["at_edge"]) == ({"C": 1e-4}, ["C"])


def test_the_criterion_decides() -> None:
    """Only one setting finds the rare class: mean class accuracy selects it, accuracy selects the other."""

    class Eager(Head):
        def __init__(self, eager: bool = False) -> None:
            self.eager = eager

        def fit(self, X, y):
            self._training_data(X, y)
            return self

        def predict_log_proba(self, X):
            rare = X[:, 0] > (0.5 if self.eager else 10)
            return np.log(np.where(rare[:, None], [0.1, 0.9], [0.9, 0.1]))

    y = np.repeat([0, 1], [90, 10])
    X = np.repeat([[0.0], [1.0], [1.0]], [75, 15, 10], axis=0)
    grid = {"eager": [False, True]}
    assert grid_search(Eager(), X, y, grid=grid, criterion="accuracy").best_params == {"eager": False}
    assert grid_search(Eager(), X, y, grid=grid, criterion="mean_class_accuracy").best_params == {"eager": True}
    with pytest.raises(ValueError, match="criterion: got 'f1'"):
        grid_search(Eager(), X, y, grid=grid, criterion="f1")


def test_single_source_classes_are_not_scored() -> None:
    X, y, film = films()
    film = np.where(y == 0, 1_000, film)
    found = grid_search(LinearProbe(), X, y, groups=film)
    assert found.record["scored"] == np.sum(y != 0)
    assert np.isnan(found.out_of_fold[y == 0]).all()
    assert set(found.head.classes_) == set(range(6))
    one = few_shot(y, 1, seed=0)
    single = grid_search(LinearProbe(C=0.123), X[one], y[one])
    assert (single.best_params, single.head.C, single.record["scored"]) == ({}, 0.123, 0)


def test_threads_change_nothing() -> None:
    X, y, film = films()
    one, two = (grid_search(LinearProbe(), X, y, groups=film, jobs=jobs) for jobs in (1, 2))
    assert one.record == two.record
    np.testing.assert_array_equal(one.head.coef_, two.head.coef_)


def test_balanced_weights_are_scikit_learns() -> None:
    y = np.repeat(np.arange(3), [5, 20, 75])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(class_weights(y, 3, "balanced"), expected)


def test_effective_number_weights_follow_the_paper() -> None:
    y = np.repeat(np.arange(3), [5, 50, 5000])
    weights = class_weights(y, 3, "effective")
    effective = [(1 - 0.999**n) / (1 - 0.999) for n in (5, 50, 5000)]
    np.testing.assert_allclose(weights / weights[0], [effective[0] / one for one in effective])
    assert weights @ [5, 50, 5000] == pytest.approx(len(y))
    assert weights[0] / weights[2] < class_weights(y, 3, "balanced")[0] / class_weights(y, 3, "balanced")[2]


def test_weights_given_by_class_are_taken_as_they_are() -> None:
    y = np.array([0, 0, 1])
    np.testing.assert_array_equal(class_weights(y, 2, {"wave": 3.0}, classes=["jump", "wave"]), [1, 3])
    with pytest.raises(ValueError, match="expected weights of 0 or more"):
        class_weights(y, 2, {0: -1.0})


def test_a_class_without_clips_weighs_nothing() -> None:
    np.testing.assert_allclose(class_weights(np.array([0, 0, 2]), 3, "balanced"), [0.75, 0, 1.5])


def test_balanced_sampling_draws_every_class_alike() -> None:
    y = np.repeat(np.arange(3), [5, 20, 75])
    rates = sampling_rates(y, "balanced")
    np.testing.assert_allclose([rates[y == one].sum() for one in range(3)], 1 / 3)
    np.testing.assert_allclose(sampling_rates(y, "uniform"), 0.01)


def test_log_prior_counts_weights() -> None:
    np.testing.assert_allclose(np.exp(log_prior(np.array([0, 0, 1]), 2, np.array([1, 1, 6]))), [0.25, 0.75])


def test_shots_are_nested_seeded_and_at_most_what_there_is() -> None:
    y = np.repeat(np.arange(3), [2, 10, 30])
    four, eight = few_shot(y, 4, seed=1), few_shot(y, 8, seed=1)
    assert np.bincount(y[four]).tolist() == [2, 4, 4]
    assert np.bincount(y[eight]).tolist() == [2, 8, 8]
    assert set(four) < set(eight)
    assert set(few_shot(y, 4, seed=2)) != set(four)
    with pytest.raises(ValueError, match="shots: got 0"):
        few_shot(y, 0, seed=0)


def test_a_long_tail_falls_by_its_factor() -> None:
    assert long_tail_counts(np.array([100] * 5), 10_000.0).tolist() == [100, 10, 1, 1, 1]
    assert long_tail_counts(np.array([70, 50, 80]), 1.0).tolist() == [50, 50, 50]
    y = np.repeat(np.arange(11), 100)
    kept = np.sort(np.bincount(y[long_tail(y, 100.0, seed=0)]))[::-1]
    np.testing.assert_array_equal(kept, np.round(100 * 100.0 ** (-np.arange(11) / 10)))
    heads = {np.bincount(y[long_tail(y, 100.0, seed=seed)]).argmax() for seed in range(8)}
    assert len(heads) > 3  # which class is the head is drawn
    with pytest.raises(ValueError, match=r"factor: got 0\.5"):
        long_tail_counts(np.array([1]), 0.5)
