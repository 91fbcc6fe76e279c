"""The linear probe against scikit-learn's: the same objective, the same optimum, the same use."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits

from actionvit.heads import linear_grid
from actionvit.heads.linear import LinearProbe
from actionvit.heads.linear_grid import GRID_TOL
from actionvit.heads.logistic.path import RotatedData
from actionvit.heads.selection import grid_search

C_VALUES = (1e-4, 1e-2, 1.0, 100.0)


def embeddings(n: int, d: int, classes: int, *, apart: float = 0.5, seed: int = 0):
    """Class means in noise whose spectrum falls off as that of real embeddings does; features of unlike scale."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    spectrum = (1 + np.arange(d)) ** -0.5
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    X = (apart * rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))) * spectrum @ rotation
    X = X / X.std(axis=0) * np.linspace(0.1, 3, d) + np.arange(d) % 7
    order = rng.permutation(n)
    return X[order], y[order]


def objective(X, y, coef, intercept, C, weight) -> float:
    logits = X @ coef.T + intercept
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return float(weight @ losses + 0.5 / C * (coef**2).sum())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More threads only wait for each other on matrices this small."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def data():
    X, y = embeddings(900, 96, 10)
    return X[:600], y[:600], X[600:]


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("C", C_VALUES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_optimum_is_scikit_learns(data, C, dtype, class_weight) -> None:
    X, y, test = data
    keep = (y > 2) | (np.arange(len(y)) % 3 == 0)  # three rare classes
    X, y = X[keep], y[keep]
    scaler = StandardScaler().fit(X)
    peer = LogisticRegression(C=C, class_weight=class_weight, tol=1e-10, max_iter=20_000).fit(scaler.transform(X), y)
    own = LinearProbe(C=C, class_weight=class_weight).fit(X.astype(dtype), y)
    weight = (len(y) / 10 / np.bincount(y))[y] if class_weight else np.ones(len(y))
    coef, intercept = own.coef_ * scaler.scale_, own.intercept_ + own.coef_ @ scaler.mean_
    ours = objective(scaler.transform(X), y, coef, intercept, C, weight)
    best = objective(scaler.transform(X), y, peer.coef_, peer.intercept_, C, weight)
    assert abs(ours - best) <= 1e-7 * best
    assert np.mean(own.predict(test.astype(dtype)) == peer.predict(scaler.transform(test))) >= 0.999
    assert np.abs(own.predict_proba(test.astype(dtype)) - peer.predict_proba(scaler.transform(test))).max() < 3e-4


@pytest.mark.parametrize("C", [1e4, 1e6])
def test_the_solver_ends_where_every_row_is_certain(C) -> None:
    rng = np.random.default_rng(0)
    for n, d in ((50, 1), (48, 23), (9, 4)):
        y = np.arange(n) % 2
        X = (rng.normal(size=(n, d)) + 9 * y[:, None]).astype(np.float32)
        head = LinearProbe(C=C).fit(X, y)
        assert np.isfinite(head.coef_).all() and head.score(X, y) == 1


@pytest.mark.parametrize("C", C_VALUES)
def test_the_certificate_bounds_the_true_distance(data, C) -> None:
    X, y, _ = data
    best = LinearProbe(C=C, tol=1e-7).fit(X, y)
    rough = LinearProbe(C=C, tol=GRID_TOL).fit(X, y)
    assert best.gap_ < 1e-10 * best.loss_
    assert rough.loss_ - best.loss_ <= rough.gap_ <= 1e-4 * rough.loss_
    assert rough.loss_ > best.loss_  # or the certificate was not needed
    distance = np.linalg.norm(rough.coef_ * X.std(axis=0) - best.coef_ * X.std(axis=0))
    assert distance <= GRID_TOL * np.linalg.norm(best.coef_ * X.std(axis=0))


@pytest.mark.parametrize(("n", "d"), [(40, 300), (300, 40), (60, 60)])
def test_few_rows_or_few_features_reach_the_same_optimum(n, d) -> None:
    X, y = embeddings(n, d, 4)
    scaled = StandardScaler().fit_transform(X)
    peer = LogisticRegression(C=0.1, tol=1e-10, max_iter=20_000).fit(scaled, y)
    own = LinearProbe(C=0.1, tol=1e-6, standardize=False).fit(scaled, y)
    np.testing.assert_allclose(own.coef_, peer.coef_, atol=2e-6)
    np.testing.assert_allclose(own.intercept_, peer.intercept_, atol=2e-6)


@pytest.fixture(scope="module")
def separable():
    """Three clips of each source in more features than a penalty of this strength can hold back."""
    rng = np.random.default_rng(0)
    source = np.arange(600) // 3
    y = source % 50
    X = rng.normal(size=(50, 384))[y] + 2 * rng.normal(size=(200, 384))[source] + rng.normal(size=(600, 384))
    return X.astype(np.float32), y


@pytest.mark.parametrize("C", [0.5, 3.0, 12.0, 100.0])
def test_a_weak_penalty_reaches_the_optimum_from_zero(separable, C) -> None:
    X, y = separable
    own = LinearProbe(C=C).fit(X, y)
    scaled = StandardScaler().fit_transform(X.astype(np.float64))
    peer = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(scaled, y)
    best = objective(scaled, y, peer.coef_, peer.intercept_, C, np.ones(len(y)))
    assert own.gap_ <= 1e-5 * own.loss_
    assert abs(own.loss_ - best) <= 1e-4 * best


def test_a_grid_of_one_weak_penalty_reaches_the_optimum(separable) -> None:
    X, y = separable
    folds = [
        (np.flatnonzero(np.arange(600) // 3 % 4 != fold), np.flatnonzero(np.arange(600) // 3 % 4 == fold))
        for fold in (0, 1)
    ]
    for C in (3.0, 12.0):
        fits = LinearProbe().fit_grid(X, y, folds, [{"C": C}])
        for (train, val), log_proba in zip(folds, fits.predictions, strict=True):
            alone = LinearProbe(C=C).fit(X[train], y[train])
            assert alone.gap_ <= 1e-5 * alone.loss_
            np.testing.assert_allclose(np.exp(log_proba[0]), alone.predict_proba(X[val]), atol=0.02)


def test_separable_classes_converge_in_single_precision() -> None:
    X, y = embeddings(400, 300, 8, apart=3.0)
    own = LinearProbe(C=1000.0).fit(X.astype(np.float32), y)
    assert own.n_iter_ < 40
    assert own.gap_ <= 1e-6 * own.loss_
    assert own.score(X.astype(np.float32), y) == 1.0


@pytest.mark.parametrize("criterion", ["accuracy", "mean_class_accuracy", "log_loss"])
def test_a_path_gives_what_single_fits_give(criterion) -> None:
    X, y = embeddings(900, 96, 10)
    train, val = np.arange(600), np.arange(600, 900)
    grid = [{"C": C} for C in (1.0, 1e-4, 1e-2)]  # not in order, so that results must be put back
    fit = LinearProbe(tol=1e-5).fit_grid(X, y, [(train, val)], grid, criterion=criterion)
    for i, (params, found) in enumerate(zip(grid, fit.predictions[0], strict=True)):
        refit, alone = fit.refit(params), LinearProbe(**params, tol=1e-5).fit(X, y)
        np.testing.assert_allclose(refit.predict_proba(X), alone.predict_proba(X), atol=1e-4)
        if i not in fit.stopped:
            alone = LinearProbe(**params, tol=1e-5).fit(X[train], y[train])
            assert np.abs(np.exp(found) - alone.predict_proba(X[val])).max() < 5e-3
            assert np.mean(found.argmax(axis=1) == alone.predict(X[val])) >= 0.99
    assert fit.stopped in ([], [0])


@pytest.mark.parametrize("criterion", ["accuracy", "mean_class_accuracy", "log_loss"])
def test_early_stops_do_not_change_the_selected_c(criterion, monkeypatch) -> None:
    stopped = 0
    for seed in range(8):
        X, y = embeddings(360, 60, 6 + seed, apart=0.15 + 0.05 * seed, seed=seed)
        groups = np.arange(len(y)) // (1 + seed % 4)
        y = y[groups]
        X = (X + 2 * np.random.default_rng(seed).normal(size=X.shape)[groups]).astype(np.float32)
        results = []
        for safety in (linear_grid.SAFETY, np.inf):
            with monkeypatch.context() as patch:
                patch.setattr(linear_grid, "SAFETY", safety)
                results.append(grid_search(LinearProbe(), X, y, groups=groups, criterion=criterion))
        early, full = results
        assert early.best_params == full.best_params
        np.testing.assert_array_equal(early.head.coef_, full.head.coef_)
        assert full.record["stopped"] == []
        stopped += len(early.record["stopped"])
    assert stopped > 8


def test_sample_weights_stand_for_repeated_rows(data) -> None:
    X, y, test = data
    times = np.random.default_rng(0).integers(0, 4, len(y))
    repeated = LinearProbe(tol=1e-6).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    weighted = LinearProbe(tol=1e-6).fit(X, y, sample_weight=times)
    np.testing.assert_allclose(weighted.predict_proba(test), repeated.predict_proba(test), atol=1e-6)


def test_a_constant_feature_and_a_huge_offset_do_no_harm() -> None:
    X, y = embeddings(200, 20, 4)
    plain = LinearProbe().fit(X, y).predict_proba(X)
    odd = np.column_stack([X + 1e4, np.full(len(X), 0.1)])
    np.testing.assert_allclose(LinearProbe().fit(odd, y).predict_proba(odd), plain, atol=1e-6)


def test_logit_adjustment_moves_the_intercept_by_the_log_prior(data) -> None:
    X, y, _ = data
    plain, adjusted = LinearProbe().fit(X, y), LinearProbe(logit_adjust=1.5).fit(X, y)
    prior = np.bincount(y) / len(y)
    np.testing.assert_array_equal(adjusted.coef_, plain.coef_)
    np.testing.assert_allclose(adjusted.intercept_, plain.intercept_ - 1.5 * np.log(prior))


def test_logit_adjustment_shifts_the_intercept() -> None:
    """Menon's loss for a linear head, minimized numerically, has the optimum that the shift gives directly."""
    from scipy.optimize import minimize

    X, y = embeddings(120, 5, 3, apart=1.0)
    keep = (y < 2) | (np.arange(len(y)) % 4 == 0)
    X, y = StandardScaler().fit_transform(X[keep]), y[keep]
    prior = np.log(np.bincount(y) / len(y))

    def loss(flat) -> float:
        coef, intercept = flat[:15].reshape(3, 5), flat[15:]
        return objective(X, y, coef, intercept + prior, 0.5, np.ones(len(y)))

    found = minimize(loss, np.zeros(18), method="BFGS", tol=1e-9).x
    own = LinearProbe(C=0.5, logit_adjust=1.0, standardize=False, tol=1e-6).fit(X, y)
    np.testing.assert_allclose(own.coef_, found[:15].reshape(3, 5), atol=1e-4)
    np.testing.assert_allclose(own.intercept_ - own.intercept_.mean(), found[15:] - found[15:].mean(), atol=1e-4)


def test_it_works_where_scikit_learn_classifiers_do(data) -> None:
    X, y, _ = data
    scores = cross_val_score(make_pipeline(Normalizer(), LinearProbe()), X, y, cv=3)
    assert scores.min() > 0.5
    search = GridSearchCV(LinearProbe(), {"C": [1e-5, 1e-2]}, cv=3).fit(X, y)
    assert search.best_params_ == {"C": 1e-2}


def test_bad_settings_are_told(data) -> None:
    X, y, _ = data
    with pytest.raises(ValueError, match="C, tol: got"):
        LinearProbe(C=0).fit(X, y)
    with pytest.raises(ValueError, match="class_weight: got 'heavy', expected one of none, balanced, effective"):
        LinearProbe(class_weight="heavy").fit(X, y)
    with pytest.raises(ValueError, match="y: got 1 class"):
        LinearProbe().fit(X, np.zeros(len(X)))


def test_the_factorisation_does_not_care_for_weights() -> None:
    """One `RotatedData` serves any weights: the optimum is the same as with a factorisation made for them."""
    X, y = embeddings(200, 30, 4)
    X = StandardScaler().fit_transform(X)
    weight = np.random.default_rng(0).exponential(size=len(y))
    shared, own = RotatedData(X), RotatedData(X, weight)
    first, second = (one.to_input_space(next(one.path(y, weight, [0.1], tol=1e-7)).weights) for one in (shared, own))
    np.testing.assert_allclose(first[0], second[0], atol=1e-7)
