"""Every head as a scikit-learn classifier, on disk and back, and on problems whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from actionvit.heads.attentive import AttentiveProbe
from actionvit.heads.base import Head
from actionvit.heads.calibration import MAX_EXPONENT, fit_exponents, fit_temperature, fuse, log_softmax
from actionvit.heads.fusion import LateFusion
from actionvit.heads.linear import LinearProbe
from actionvit.heads.mlp import MLPProbe
from actionvit.heads.nearest import CentroidProbe, KNNProbe
from actionvit.heads.saving import KINDS, dump_head, head_class, kind_of, load_head
from actionvit.heads.selection import grid_search

HEADS: dict[str, Head] = {
    "linear": LinearProbe(),
    "attentive": AttentiveProbe(epochs=20, batch=64),
    "mlp": MLPProbe(width=32, epochs=20, batch=64, lr=3e-3),
    "knn": KNNProbe(k=5),
    "centroid": CentroidProbe(),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More threads only wait for each other on matrices this small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def blobs(n: int = 120, d: int = 8, classes: int = 3, *, apart: float = 2.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (apart * rng.normal(size=(classes, d)))[y] + rng.normal(size=(n, d)), y


def test_every_kind_is_tested() -> None:
    assert {*HEADS, "fusion"} == set(KINDS)


@pytest.mark.parametrize("kind", HEADS)
def test_scikit_learns_own_checks(kind) -> None:
    check_estimator(HEADS[kind], on_skip=None)


@pytest.mark.parametrize("kind", HEADS)
def test_pipeline_cross_validation_and_grid_search(kind) -> None:
    X, y = blobs()
    names = np.array(["clap", "jump", "wave"])[y]
    assert cross_val_score(make_pipeline(StandardScaler(), HEADS[kind]), X, names, cv=3).mean() > 0.9
    name = {"linear": "C", "knn": "k", "centroid": "temperature"}.get(kind, "epochs")
    values = {"C": [0.01, 1.0], "k": [1, 5], "temperature": [0.1, 1.0], "epochs": [5, 20]}[name]
    search = GridSearchCV(HEADS[kind], {name: values}, cv=2).fit(X, names)
    assert search.best_score_ > 0.8


def fused(blocks, y, **settings) -> LateFusion:
    """Linear probes, one per block, fused."""
    results = [grid_search(LinearProbe(), block, y) for block in blocks]
    fusion = LateFusion(widths=[block.shape[1] for block in blocks], **settings)
    return fusion.assemble([each.head for each in results], [each.out_of_fold for each in results], y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_head_gives_the_same_bits(kind, tmp_path) -> None:
    from safetensors.numpy import load_file, save_file

    X, y = blobs()
    X = X.astype(np.float32)
    for labels in (y, np.array(["clap", "jump", "wave"])[y]):
        head = fused([X[:, :3], X[:, 3:]], labels) if kind == "fusion" else HEADS[kind].fit(X, labels)
        tensors, config = dump_head(head)
        save_file(tensors, tmp_path / "head.safetensors")
        again = load_head(load_file(tmp_path / "head.safetensors"), json.loads(json.dumps(config)))
        assert kind_of(again) == kind
        np.testing.assert_array_equal(again.predict_proba(X), head.predict_proba(X))
        np.testing.assert_array_equal(again.predict(X), head.predict(X))
        assert again.get_params(deep=False).keys() == head.get_params(deep=False).keys()


@pytest.mark.parametrize("kind", HEADS)
def test_predict_grid_gives_what_single_fits_give(kind) -> None:
    X, y = blobs(apart=0.7)
    head = HEADS[kind]
    grid = head_class(kind).default_grid
    names = sorted(grid)
    first, second = ({name: grid[name][i] for name in names} for i in (0, 1))
    settings = [second, first, {**second, names[-1]: first[names[-1]]}]
    found = head.predict_grid(X[:80], y[:80], X[80:], settings)
    for setting, log_proba in zip(settings, found, strict=True):
        alone = head_class(kind)(**{**head.get_params(deep=False), **setting}).fit(X[:80], y[:80])
        np.testing.assert_allclose(np.exp(log_proba), alone.predict_proba(X[80:]), atol=2e-3 if kind == "linear" else 0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["attentive", "mlp"])
def test_a_gpu_finds_what_the_cpu_finds(kind) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    X, y = blobs(apart=0.7)
    found = []
    for device in ("cpu", "cuda"):
        head = clone(HEADS[kind]).set_params(device=device)
        grid = {name: values[:2] for name, values in head_class(kind).default_grid.items()}
        selected = grid_search(head, X.astype(np.float32), y, grid=grid, folds=3)
        found.append((head.fit(X.astype(np.float32), y).predict_proba(X), np.exp(selected.out_of_fold)))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=0.02)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=0.02)


@pytest.mark.parametrize("kind", ["attentive", "mlp"])
def test_same_seed_same_bits_other_seed_other_bits(kind) -> None:
    X, y = blobs()
    first, again = (head_class(kind)(epochs=5).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(head_class(kind)(epochs=5, random_state=1).fit(X, y).predict_proba(X) - first).max() > 1e-6


@pytest.mark.parametrize("k", [1, 7, 40])
def test_neighbours_vote_as_in_scikit_learn(k) -> None:
    X, y = blobs(300, apart=0.6)
    temperature = 0.2
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp(-d / temperature))
    peer.fit(X[:200], y[:200])
    own = KNNProbe(k=k, temperature=temperature, center=False).fit(X[:200], y[:200])
    np.testing.assert_allclose(own.predict_proba(X[200:]), peer.predict_proba(X[200:]), atol=1e-6)
    np.testing.assert_array_equal(own.predict(X[200:]), peer.predict(X[200:]))


def test_centring_undoes_a_common_part_that_hides_directions() -> None:
    X, y = blobs(600, apart=1.0)
    shifted = X + 50.0
    plain, centred = (KNNProbe(center=center).fit(shifted[:300], y[:300]) for center in (False, True))
    assert centred.score(shifted[300:], y[300:]) > plain.score(shifted[300:], y[300:]) + 0.1
    unshifted = KNNProbe().fit(X[:300], y[:300])
    np.testing.assert_array_equal(centred.predict(shifted[300:]), unshifted.predict(X[300:]))


def test_centroids_are_the_class_means_directions() -> None:
    X = np.array([[1.0, 0], [3, 0], [0, 2], [0, 5]])
    head = CentroidProbe(center=False).fit(X, [0, 0, 1, 1])
    np.testing.assert_allclose(head.centroids_, [[1, 0], [0, 1]])
    log_odds = np.diff(head.predict_log_proba([[1.0, 2.0]]))[0, 0]
    assert log_odds == pytest.approx((2 - 1) / np.sqrt(5) / 0.1)


def test_attention_finds_the_frames_that_tell() -> None:
    """Only frames 5 and 6 of 8 depend on the class: the mean over frames hides it, the pooling query finds it."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 4
    X = rng.normal(size=(600, 8, 16)) * 2
    X[:, 5:7] += 1.5 * rng.normal(size=(4, 16))[y][:, None]
    mean = LinearProbe().fit(X[:400].mean(axis=1), y[:400]).score(X[400:].mean(axis=1), y[400:])
    head = AttentiveProbe(epochs=60, queries=1).fit(X[:400], y[:400])
    assert head.score(X[400:], y[400:]) > mean + 0.1
    weights = np.exp(head.weights_["position"][:, 0])
    assert set(np.argsort(weights)[-2:]) == {5, 6}


def test_a_hidden_layer_solves_what_no_linear_head_can() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    assert LinearProbe().fit(X[:400], y[:400]).score(X[400:], y[400:]) < 0.65
    assert MLPProbe(epochs=100).fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9


def gaussians(common: int, rare: int, half: float, seed: int):
    """Two Gaussians of deviation 1 at ±`half` on a line."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [common, rare])
    return (rng.normal(size=len(y)) + half * (2 * y - 1))[:, None], y


@pytest.mark.parametrize(
    "weighted",
    [
        LinearProbe(C=100.0, class_weight="balanced"),
        LinearProbe(C=100.0, logit_adjust=1.0),
        MLPProbe(width=16, epochs=5, dropout=0.0, class_weight="balanced"),
        MLPProbe(width=16, epochs=5, dropout=0.0, sampler="balanced"),
        MLPProbe(width=16, epochs=5, dropout=0.0, logit_adjust=1.0),
    ],
    ids=["linear weight", "linear adjusted", "mlp weight", "mlp sampler", "mlp adjusted"],
)
def test_balancing_raises_mean_class_accuracy_as_predicted(weighted) -> None:
    """Frequencies 9 : 1 move Bayes' threshold from 0 to log 9 / 2m, which costs mean class accuracy a known amount."""
    half = 1.0
    X, y = gaussians(27_000, 3_000, half, seed=0)
    test, truth = gaussians(50_000, 50_000, half, seed=1)
    plain = type(weighted)(**{**weighted.get_params(), "class_weight": None, "logit_adjust": 0.0})
    if isinstance(plain, MLPProbe):
        plain.set_params(sampler="uniform")
    threshold = np.log(9) / (2 * half)
    expected = norm.cdf(half) - (norm.cdf(half - threshold) + norm.cdf(half + threshold)) / 2
    assert expected > 0.11
    gain = balanced_accuracy_score(truth, weighted.fit(X, y).predict(test)) - balanced_accuracy_score(
        truth, plain.fit(X, y).predict(test)
    )
    assert gain == pytest.approx(expected, abs=0.015)


def test_focal_loss_cares_less_for_what_is_right_already() -> None:
    X, y = blobs(400, apart=1.5)
    plain, focal = (MLPProbe(epochs=20, focal=gamma).fit(X, y).predict_proba(X).max(axis=1).mean() for gamma in (0, 5))
    assert focal < plain - 0.05


@pytest.mark.parametrize("focal", [0.3, 1.0, 2.0])
def test_a_focal_loss_learns_from_what_it_is_sure_of(focal: float) -> None:
    """Separable far apart: probabilities round to 1, of which a power below 1 must not make a gradient of nan."""
    y = np.arange(40) % 2
    X = np.where(y[:, None] == 1, 50.0, -50.0) + np.random.default_rng(0).normal(size=(40, 4))
    head = MLPProbe(focal=focal, epochs=60, lr=0.1, width=8).fit(X, y)
    assert all(np.isfinite(value).all() for value in head.weights_.values()) and head.score(X, y) == 1


def test_no_exponent_makes_all_classes_equal() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    wrong = log_softmax(-4.0 * np.eye(3)[y] + rng.normal(size=(200, 3)))  # worse than uniform predictions
    for members in ([wrong], [wrong, wrong]):
        exponents = fit_exponents(members, y)
        assert exponents.min() >= 0 and exponents.max() > 0
        assert (np.ptp(fuse(members, exponents), axis=1) > 0).all()


def test_temperature_scaling_finds_the_temperature() -> None:
    """Labels drawn from softmax(z), predictions softmax(3 z): the exponent is 1/3."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(40_000, 5))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (true.cumsum(axis=1) < rng.random((len(true), 1))).sum(axis=1)
    sharp = 3 * logits - np.log(np.exp(3 * logits).sum(axis=1, keepdims=True))
    exponents = fit_exponents([sharp], y)
    assert exponents[0] == pytest.approx(1 / 3, abs=0.01)
    np.testing.assert_allclose(np.exp(fuse([sharp], np.array([1 / 3]))), true, atol=1e-9)


def test_stacking_trusts_the_member_that_knows() -> None:
    rng = np.random.default_rng(0)
    X, y = blobs(400, apart=1.0)
    noise = rng.normal(size=X.shape)
    both = np.hstack([X, noise])
    stacked, mean = (fused([X[:250], noise[:250]], y[:250], rule=rule) for rule in ("stacked", "mean"))
    assert stacked.exponents_[1] < 0.2 * stacked.exponents_[0]
    np.testing.assert_array_equal(mean.exponents_, [0.5, 0.5])
    single = grid_search(LinearProbe(), X[:250], y[:250]).head
    assert stacked.score(both[250:], y[250:]) >= single.score(X[250:], y[250:]) - 0.02


def test_fusing_two_views_of_the_same_beats_either() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(900) % 3
    means = rng.normal(size=(3, 6))
    blocks = [means[y] + 2 * rng.normal(size=(900, 6)) for _ in range(2)]
    alone = [LinearProbe().fit(block[:500], y[:500]).score(block[500:], y[500:]) for block in blocks]
    for rule in ("mean", "stacked"):
        fusion = fused([block[:500] for block in blocks], y[:500], rule=rule)
        assert fusion.score(np.hstack(blocks)[500:], y[500:]) > max(alone)


def test_fusion_refuses_heads_that_do_not_fit() -> None:
    X, y = blobs()
    heads, none = [LinearProbe().fit(X, y)], [np.zeros((len(y), 3))]
    with pytest.raises(ValueError, match=r"widths: got \[3, 3\], expected a sum of 8"):
        LateFusion(widths=[3, 3]).assemble(heads, none, y)
    with pytest.raises(ValueError, match="rule: got 'vote', expected one of mean, stacked"):
        LateFusion(rule="vote").assemble(heads, none, y)
    with pytest.raises(ValueError, match="different classes"):
        LateFusion().assemble(heads, none, y % 2)


def test_flawless_predictions_leave_the_exponent_finite() -> None:
    """With targets (n + 1) / (n + 2) the optimum is known: every row's score for its class becomes the target."""
    y = np.arange(60) % 3
    flawless = log_softmax(2.0 * np.eye(3)[y])
    (exponent,) = fit_exponents([flawless], y)
    smoothing = 1 / (len(y) + 2)
    expected = np.log((1 - smoothing + smoothing / 3) / (smoothing / 3)) / 2.0
    assert exponent == pytest.approx(expected, rel=1e-3)
    assert fit_temperature(2.0 * np.eye(3)[y][:, None], y) == pytest.approx(1 / expected, rel=1e-3)
    assert exponent < 0.2 * MAX_EXPONENT


def test_calibrating_flawless_predictions_improves_the_log_loss() -> None:
    """Few training sources, all correct out of fold; an unbounded exponent doubles the log-loss on test clips."""
    losses = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        means = 1.6 * rng.normal(size=(5, 24)) / 1.3
        source = np.repeat(np.arange(150), rng.integers(1, 4, 150))
        y = source % 5
        X = means[y] + rng.normal(size=(150, 24))[source] + 0.8 * rng.normal(size=(len(y), 24))
        train = source < 30
        result = grid_search(LinearProbe(), X[train], y[train], groups=source[train])
        if not (result.out_of_fold.argmax(axis=1) == y[train]).all():
            continue
        test = result.head.predict_log_proba(X[~train])
        calibrated = fuse([test], fit_exponents([result.out_of_fold], y[train]))
        losses.append([-scores[np.arange(len(test)), y[~train]].mean() for scores in (calibrated, test)])
    calibrated_loss, uncalibrated_loss = np.mean(losses, axis=0)
    assert len(losses) >= 5
    assert calibrated_loss < uncalibrated_loss


@pytest.mark.parametrize("k", [1, 3, 20])
def test_k_nn_does_not_depend_on_class_names(k) -> None:
    X, y = blobs(300, d=6, classes=10, apart=0.9)
    rename = np.random.default_rng(1).permutation(10)
    first, second = (KNNProbe(k=k).fit(X[:200], labels[:200]) for labels in (y, rename[y]))
    log_proba = first.predict_log_proba(X[200:])
    renamed = second.predict_log_proba(X[200:])[:, rename]
    np.testing.assert_allclose(renamed, log_proba, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(np.argsort(-renamed, axis=1), np.argsort(-log_proba, axis=1))
    assert all(len(np.unique(row)) == 10 for row in log_proba)
    ranking = np.argsort(-log_proba, axis=1)
    top5 = (ranking[:, :5] == y[200:, None]).any(axis=1).mean()
    top1 = (ranking[:, 0] == y[200:]).mean()
    assert top5 > top1 + 0.1


def test_classes_without_a_vote_are_ranked_by_nearest_row() -> None:
    angles = np.array([0.0, 0.3, 0.6, 0.9, 1.2])
    X, y = np.column_stack([np.cos(angles), np.sin(angles)]), np.array([3, 0, 4, 1, 2])
    log_proba = KNNProbe(k=1, center=False).fit(X, y).predict_log_proba([[1.0, 0.01]])
    assert np.argsort(-log_proba[0]).tolist() == y.tolist()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (MLPProbe(epochs=0), "epochs, batch, lr: got"),
        (MLPProbe(dropout=1.0), "dropout: got 1.0"),
        (AttentiveProbe(focal=-1), "focal: got -1"),
        (MLPProbe(sampler="fair"), "sampler: got 'fair', expected one of uniform, balanced"),
        (KNNProbe(k=0), "k, temperature: got 0"),
        (CentroidProbe(temperature=0), "temperature: got 0"),
    ],
)
def test_bad_settings_are_told(head, message) -> None:
    X, y = blobs()
    with pytest.raises(ValueError, match=message):
        head.fit(X, y)


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="head: got 'svm', expected one of linear, attentive"):
        head_class("svm")
