"""Findings of a report from embeddings: the projection, nearest training clips, near-duplicates across a split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fake_runs import embeddings, predictions, write
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.pipeline.reporting.analysis import analyse, project
from actionvit.pipeline.reporting.duplicates import near_duplicates
from actionvit.pipeline.reporting.embeddings import Embeddings, read_embeddings
from actionvit.pipeline.reporting.model import HardClip
from actionvit.pipeline.reporting.text import duplicate_line
from actionvit.pipeline.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two splits, each of which trains on the test clips of the other, and three clips of no class, never tested."""
    found = predictions()
    folder = tmp_path_factory.mktemp("runs") / "base"
    ids = {name: sorted(found.id[found.split == name].tolist()) for name in found.split_names}
    train = {"official-1": [*ids["official-2"], "x", "y", "z"], "official-2": ids["official-1"]}
    return write(folder, found, train=train)


def hard(id_: str, split: str) -> HardClip:
    return HardClip(id=id_, split=split, true="", why="", results=[])


@pytest.fixture
def space(run: Run) -> Embeddings:
    return embeddings(run.predictions, extra=("x", "y", "z"))


def test_pca_is_scikit_learns(space: Embeddings) -> None:
    points, explained = project(space.x)
    theirs = PCA(2).fit(space.x.astype(np.float64))
    assert explained == pytest.approx(theirs.explained_variance_ratio_, abs=1e-6)
    expected = theirs.transform(space.x)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
    again, _ = project(space.x[::-1])
    np.testing.assert_allclose(again[::-1], points, atol=1e-5)  # the signs do not depend on the order


def test_tsne_keeps_neighbours_together_and_repeats(space: Embeddings) -> None:
    x = space.x[::3]
    points, explained = project(x, "tsne")
    assert explained == [] and points.shape == (len(x), 2)
    assert trustworthiness(x, points, n_neighbors=5) > 0.8
    np.testing.assert_array_equal(points, project(x, "tsne")[0])


def test_umap_is_used_where_it_is_installed_and_named_where_not(space: Embeddings) -> None:
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(ActionVitError, match="pip install umap-learn"):
            project(space.x, "umap")
        return
    assert project(space.x, "umap")[0].shape == (len(space.x), 2)


def test_an_unknown_projection_lists_what_there_is(space: Embeddings) -> None:
    with pytest.raises(ValueError, match="got 'mds', expected one of pca, tsne, umap"):
        project(space.x, "mds")  # type: ignore[arg-type]


def test_plot_shows_tested_clips_and_their_accuracy(run: Run, space: Embeddings) -> None:
    other = dataclasses.replace(run, folder=Path("other"), predictions=predictions(seed=3))
    picture = analyse([run, other], space).projection
    assert {point.id for point in picture.points} == set(run.predictions.id.tolist()), "not x, y, z"
    hits = [one.predictions.scores.argmax(1) == one.predictions.true for one in (run, other)]
    by_id = dict(zip(run.predictions.id.tolist(), np.mean(hits, axis=0), strict=True))
    for point in picture.points:
        assert point.correct == by_id[point.id] and point.id.startswith(point.true)
    shown = {point.id: point for point in picture.points if point.id in picture.shown}
    assert 2 <= len(shown) <= 6 and len({point.true for point in shown.values()}) == len(shown)


def test_a_handful_of_clips_is_projected_by_pca_and_says_so(run: Run) -> None:
    found = predictions(clips=8)
    few = dataclasses.replace(run, predictions=found, train={})
    picture = analyse([few], embeddings(found), method="tsne").projection
    assert picture.method == "pca" and len(picture.explained) == 2


def test_nearest_training_clips_are_scikit_learns(run: Run, space: Embeddings) -> None:
    found = run.predictions
    look_at = [hard(str(found.id[row]), str(found.split[row])) for row in (0, 1, 7, 50)]
    for one, clip in zip(analyse([run], space, hard=look_at).neighbors, look_at, strict=True):
        train = [space.id.tolist().index(id_) for id_ in run.train[clip.split]]
        centre = space.x[train].mean(0)
        own = space.x[space.id.tolist().index(clip.id)]
        nearest = NearestNeighbors(n_neighbors=3, metric="cosine").fit(space.x[train] - centre)
        distance, at = nearest.kneighbors([own - centre])
        assert [near.id for near in one.nearest] == [str(space.id[train[place]]) for place in at[0]]
        assert [near.cosine for near in one.nearest] == pytest.approx(1 - distance[0], abs=1e-3)
        for near in one.nearest:
            assert near.class_ == (near.id.split("/")[0] if "/" in near.id else None)


def test_planted_near_duplicates_are_found_with_their_effect(run: Run, space: Embeddings) -> None:
    found, at = run.predictions, {id_: row for row, id_ in enumerate(space.id.tolist())}
    tests = [found.id[found.split == name].tolist() for name in ("official-1", "official-2")]
    x, digest = space.x.copy(), space.digest.copy()
    twin, copy = (tests[0][3], tests[1][5]), (tests[0][8], tests[1][9])
    x[at[twin[0]]] = x[at[twin[1]]] + 0.01 * np.random.RandomState(0).standard_normal(x.shape[1])
    digest[at[copy[0]]] = digest[at[copy[1]]]  # the same bytes under two names
    leaks = near_duplicates([run], dataclasses.replace(space, x=x, digest=digest))
    flagged = {frozenset(pair.clips): pair for pair in leaks.pairs}
    assert set(flagged) == {frozenset(twin), frozenset(copy)}
    assert flagged[frozenset(copy)].same_file and not flagged[frozenset(twin)].same_file
    assert flagged[frozenset(twin)].cosine > 0.995
    assert flagged[frozenset(twin)].same_class == (twin[0].split("/")[0] == twin[1].split("/")[0])
    assert {pair.times for pair in leaks.pairs} == {2}, "each is tested with the other in training"
    assert (leaks.clips, leaks.results, leaks.n_pairs) == (4, 4, 2)
    hit = found.scores.argmax(1) == found.true
    own = np.isin(found.id, [*twin, *copy])
    effect = leaks.effect[0]
    assert (effect.top1, effect.without, effect.flagged) == (hit.mean(), hit[~own].mean(), hit[own].mean())
    assert duplicate_line(leaks).startswith("4 test clips have a near-duplicate")


def test_outliers_of_other_classes_are_no_near_duplicates(run: Run, space: Embeddings) -> None:
    found, at = run.predictions, {id_: row for row, id_ in enumerate(space.id.tolist())}
    tests = [found.id[found.split == name].tolist() for name in ("official-1", "official-2")]
    pairs = [(a, b) for a, b in zip(*tests, strict=False) if a.split("/")[0] != b.split("/")[0]][:8]
    assert len(pairs) == 8
    x = space.x.copy()
    for a, b in pairs:
        x[at[a]] = x[at[b]]
    leaks = near_duplicates([run], dataclasses.replace(space, x=x))
    assert (leaks.threshold, leaks.pairs) == (None, [])
    assert "do not distinguish near-duplicates" in duplicate_line(leaks)


def test_where_nothing_is_alike_nothing_is_flagged(run: Run, space: Embeddings) -> None:
    leaks = near_duplicates([run], space)
    assert (leaks.clips, leaks.pairs) == (0, [])
    effect = leaks.effect[0]
    assert effect.without == effect.top1 and effect.flagged is None
    assert duplicate_line(leaks).startswith("No test clip")


def test_leaks_are_unknown_without_recorded_training_clips(run: Run, space: Embeddings) -> None:
    silent = dataclasses.replace(run, train={})
    found = analyse([silent], space, hard=[hard(str(run.predictions.id[0]), "official-1")])
    assert found.duplicates is None and found.neighbors == []


def test_embeddings_are_read_from_an_unchanged_store_only(tmp_path: Path) -> None:
    from fake_store import fill, numbered

    store = fill(tmp_path / "store", range(5))
    known = {"path": str(store.folder), "digest": FeatureStore.open(store.folder).digest()}
    run = Run(folder=tmp_path, info={"store": known}, predictions=predictions(), metrics={}, train={})
    found = read_embeddings(run)
    assert found is not None and found.id.tolist() == store.ids
    np.testing.assert_array_equal(found.x, store.read(store.ids, "clip").mean(axis=1))
    assert found.digest.tolist() == [row.digest for row in store.records(store.ids)]
    with Writer(store) as writer:
        writer.append(numbered(9))
    assert read_embeddings(run) is None, "another store by now"
    assert read_embeddings(dataclasses.replace(run, info={"store": {"path": "gone", "digest": "0"}})) is None
    assert read_embeddings(dataclasses.replace(run, info={})) is None
