"""The walk against Deita's loop, transcribed from hkust-nlp/deita's description: one candidate at a time."""

import numpy as np
import pytest

from data_tools.dialogues.diversity import KEPT, OVER_BUDGET, TOO_SIMILAR, ArrayVectors, DiversityWalk, Walked, cosine
from data_tools.dialogues.embedding import NgramEmbedding
from data_tools.dialogues.short_vectors import Near, Shortening
from tests.data_tools.corpus.real_texts import chatdoctor, dialogues, needs_shared


def deita(vectors: np.ndarray, threshold: float, size: int = -1, dtype: type = np.float32) -> list[int]:
    """Keep the first; drop what has a cosine above the threshold with any kept one; stop at the size."""
    vectors = vectors.astype(dtype)
    for _ in range(2):  # Deita divides by the lengths twice
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    stays = np.zeros(len(vectors), np.bool_)
    found: list[int] = []
    for start in range(0, len(vectors), 500):
        above = vectors[start : start + 500] @ vectors.T > threshold
        for place in range(start, min(start + 500, len(vectors))):
            if place == 0 or not above[place - start][stays].any():
                stays[place] = True
                found.append(place)
            if len(found) == size:
                return found
    return found


def walk(vectors: np.ndarray, threshold: float, size: int | None = None, **options: object) -> Walked:
    count = len(vectors) if size is None else size
    walker = DiversityWalk(ArrayVectors(vectors), threshold, **options)  # type: ignore[arg-type]
    return walker(np.arange(len(vectors)), np.zeros(len(vectors), np.int64), [len(vectors)], count)


def kept(walked: Walked) -> list[int]:
    return np.flatnonzero(walked.outcome == KEPT).tolist()


def clustered(count: int, dimensions: int, clusters: int, spread: float, seed: int = 0) -> np.ndarray:
    """Around so many centres, some closely and some not; the first dimensions are the longest, as a model's."""
    draw = np.random.default_rng(seed)
    lengths = np.arange(1, dimensions + 1) ** -0.7
    centres = draw.standard_normal((clusters, dimensions)) * lengths
    noise = draw.standard_normal((count, dimensions)) * lengths * draw.uniform(0, spread, (count, 1))
    return (centres[draw.integers(0, clusters, count)] + noise).astype(np.float32)


@needs_shared
@pytest.mark.parametrize(("lang", "threshold"), [("zh", 0.9), ("zh", 0.6), ("en", 0.55)])
def test_five_thousand_real_dialogues_are_walked_as_in_the_loop_of_deita(lang: str, threshold: float) -> None:
    texts = (dialogues() if lang == "zh" else chatdoctor())[:5000]
    vectors = NgramEmbedding().vectors(texts, [lang] * len(texts))
    expected = deita(vectors, threshold)
    assert len(texts) - len(expected) > 100
    assert kept(walk(vectors, threshold)) == expected
    assert kept(walk(vectors, threshold, shorten=True)) == expected
    assert kept(walk(vectors, threshold, 1234)) == deita(vectors, threshold, 1234) == expected[:1234]


def test_ten_thousand_clustered_vectors_are_walked_as_in_the_plain_loop() -> None:
    vectors = clustered(10_000, 64, 300, 0.9)
    expected = deita(vectors, 0.9, dtype=np.float64)
    assert 1000 < len(expected) < 8000
    whole = walk(vectors, 0.9, shorten=False)
    short = walk(vectors, 0.9, shorten=True)
    assert kept(whole) == kept(short) == expected
    assert np.array_equal(whole.like, short.like)
    assert np.array_equal(whole.similarity, short.similarity, equal_nan=True)


def test_cells_and_short_vectors_spare_most_comparisons_where_dialogues_cluster() -> None:
    draw = np.random.default_rng(3)
    centres = draw.standard_normal((60, 48)) * 3
    vectors = (centres[draw.integers(0, 60, 20_000)] + draw.standard_normal((20_000, 48)) * 1.0).astype(np.float32)
    walkers = [DiversityWalk(ArrayVectors(vectors), 0.95, shorten=shorten) for shorten in (True, False)]
    everything = np.arange(len(vectors)), np.zeros(len(vectors), np.int64), [len(vectors)], len(vectors)
    outcomes = [walker(*everything).outcome for walker in walkers]
    assert np.array_equal(*outcomes)
    assert (outcomes[0] == KEPT).sum() > 5000
    assert walkers[0].compared < walkers[1].compared / 3
    assert walkers[0].checked < walkers[0].compared / 20


@pytest.mark.parametrize("block", [1, 7, 100, 4096])
@pytest.mark.parametrize("shorten", [True, False])
def test_blocks_change_nothing(block: int, shorten: bool) -> None:
    vectors = clustered(700, 24, 20, 0.8, seed=block)
    one, other = walk(vectors, 0.85, block=block, shorten=shorten), walk(vectors, 0.85)
    assert np.array_equal(one.outcome, other.outcome)
    assert np.array_equal(one.like, other.like)
    assert np.array_equal(one.similarity, other.similarity, equal_nan=True)


def test_what_is_too_similar_names_the_first_kept_one_above_the_threshold_and_their_cosine() -> None:
    vectors = clustered(800, 16, 12, 0.6)
    found = walk(vectors, 0.9, shorten=True)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = unit @ unit.T
    stays = kept(found)
    for place in np.flatnonzero(found.outcome == TOO_SIMILAR):
        like = next(other for other in stays if cosines[place, other] > 0.9)
        assert like < place
        assert found.like[place] == like
        assert found.similarity[place] == pytest.approx(cosines[place, like], abs=1e-12)
    assert np.isnan(found.similarity[stays]).all()


def test_a_cosine_of_exactly_the_threshold_stays_and_float32_rounding_decides_nothing() -> None:
    # (3, 4) and (4, 3) over (1, 0): 0.6 and 0.8, of which neither is a float; the vectors are.
    right, up = np.array([1, 0], np.float32), np.array([3, 4], np.float32)
    assert kept(walk(np.stack([right, up]), 0.6)) == [0, 1]
    assert kept(walk(np.stack([right, up]), np.nextafter(0.6, 0))) == [0]
    # 2,000 vectors whose cosine with the first is nearer to the threshold than float32 can tell
    draw = np.random.default_rng(0)
    first = draw.standard_normal(64)
    first /= np.linalg.norm(first)
    others = draw.standard_normal((2000, 64))
    others -= np.outer(others @ first, first)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    near = np.vstack([first, 0.9 * first + np.sqrt(1 - 0.81) * others]).astype(np.float32)
    exact = cosine(np.broadcast_to(near[0], near[1:].shape), near[1:])
    above = exact > 0.9
    assert 200 < above.sum() < 1800
    assert np.abs(exact - 0.9).max() < 1e-6
    for options in ({"block": 64}, {"block": 999}, {"shorten": True}):
        found = walk(near, 0.9, **options)
        assert np.array_equal(found.like[1:] == 0, above)


def test_vectors_of_zeros_are_similar_to_none_and_lengths_do_not_matter() -> None:
    vectors = np.zeros((6, 5), np.float32)
    vectors[1], vectors[3], vectors[5] = (1, 2, 3, 4, 5), (10, 20, 30, 40, 50), (-1, -2, -3, -4, -5)
    assert walk(vectors, 0.5).outcome.tolist() == [KEPT, KEPT, KEPT, TOO_SIMILAR, KEPT, KEPT]


def test_budgets_of_parts_hold_and_a_second_walk_goes_on_from_the_first() -> None:
    vectors = clustered(3000, 16, 200, 0.5)
    parts = np.random.default_rng(1).integers(0, 3, 3000)
    room, total = [150, 20, 3000], 400
    expected, counts, stays = [], [0, 0, 0], []
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for place, part in enumerate(parts):
        if counts[part] == room[part] or len(stays) == total:
            expected.append(OVER_BUDGET)
        elif stays and (unit[stays] @ unit[place]).max() > 0.9:
            expected.append(TOO_SIMILAR)
        else:
            expected.append(KEPT)
            counts[part] += 1
            stays.append(place)
    for block in (50, 2048):
        walker = DiversityWalk(ArrayVectors(vectors), 0.9, block=block)
        found = walker(np.arange(3000), parts, room, total)
        assert found.outcome.tolist() == expected
        over = np.flatnonzero(found.outcome == OVER_BUDGET)
        more = walker(over, parts[over], [3000] * 3, 100)
        kept_now = over[more.outcome == KEPT]
        again = [place for place in over if place <= kept_now[-1]]
        for place in again:
            similar = (unit[stays] @ unit[place]).max() > 0.9
            assert similar == (place not in kept_now)
            stays += [] if similar else [place]
        assert len(kept_now) == 100
        del stays[400:]


def test_within_parts_each_is_walked_for_itself() -> None:
    vectors = clustered(2000, 16, 40, 0.6)
    parts = np.arange(2000) % 2
    walker = DiversityWalk(ArrayVectors(vectors), 0.9, within_parts=True, block=300)
    found = walker(np.arange(2000), parts, [2000, 2000], 2000)
    for part in (0, 1):
        expected = deita(vectors[part::2], 0.9, dtype=np.float64)
        assert np.flatnonzero(found.outcome[part::2] == KEPT).tolist() == expected


def test_short_vectors_never_rule_out_a_pair_above_the_threshold() -> None:
    for seed, dimensions in ((0, 40), (1, 300)):
        vectors = clustered(2000, dimensions, 60, 0.7, seed=seed)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        shortening = Shortening(ArrayVectors(vectors), 0.9, True)
        short = shortening(unit)
        row, column = Near()(short.query, short.key, short.floor)
        passed = set(zip(row.tolist(), column.tolist()))
        above = np.argwhere(unit.astype(np.float64) @ unit.T.astype(np.float64) > 0.9)
        assert short.query.shape[1] < dimensions
        assert {tuple(pair) for pair in above.tolist()} <= passed
        distances = np.linalg.norm(short.z_BM[row] - short.z_BM[column], axis=1)
        assert (np.linalg.norm(short.z_BM[above[:, 0]] - short.z_BM[above[:, 1]], axis=1) <= shortening.reach).all()
        assert distances.max() <= shortening.reach + 1e-3
