"""The release test: wrong at most as often as it says, however often one looks; and quick where the case is clear."""

import numpy as np
import pytest
from numpy.typing import NDArray

from loopwright.release.sequential import Observations, decide, difference, sample_ratio_p

STEPS = (0.05, 0.25, 0.5)


def stream(
    random: np.random.Generator, rows: int, champion: float, candidate: float, kind: str = "error"
) -> Observations:
    """Return a canary of growing share, in which the two variants have these mean losses."""
    propensity = np.repeat(STEPS, [600, 600, rows])[:rows].astype(float)
    chosen = random.random(rows) < propensity
    mean: NDArray[np.float64] = np.where(chosen, candidate, champion)
    if kind == "error":
        loss = (random.random(rows) < mean).astype(float)
    elif kind == "normal":
        loss = random.normal(mean, 1.0)
    else:
        loss = random.lognormal(0.0, 1.5, rows) + mean
    return Observations(loss, chosen, propensity)


def verdicts(
    runs: int, rows: int, champion: float, candidate: float, margin: float, kind: str = "error"
) -> dict[str, float]:
    """Return how often each verdict came first, looking 50 times, and the mean number of candidate rows."""
    random = np.random.default_rng(1)
    found = {"promote": 0.0, "rollback": 0.0, "continue": 0.0, "rows": 0.0}
    for _ in range(runs):
        seen = stream(random, rows, champion, candidate, kind)
        for until in np.linspace(60, rows, 50).astype(int):
            now = Observations(seen.loss[:until], seen.candidate[:until], seen.propensity[:until])
            verdict = decide(now, margin=margin)
            if verdict.decision != "continue":
                break
        found[verdict.decision] += 1 / runs
        found["rows"] += verdict.candidate_rows / runs
    return found


@pytest.mark.parametrize("kind", ["error", "normal", "lognormal"])
def test_an_equal_candidate_is_rarely_called_better_or_worse(kind: str) -> None:
    """With no difference and no margin, at most 5 % of streams end in any verdict."""
    mean = 0.05 if kind == "error" else 0.0
    found = verdicts(200, 5000, mean, mean, 1e-9, kind)
    assert found["promote"] + found["rollback"] <= 0.05


def test_an_equal_candidate_is_promoted_within_its_margin() -> None:
    """Non-inferiority is shown for most equal candidates."""
    found = verdicts(100, 12_000, 0.05, 0.05, 0.02)
    assert found["promote"] >= 0.9
    assert found["rollback"] <= 0.03


def test_a_candidate_twice_as_bad_is_rolled_back() -> None:
    """Errors of 10 % instead of 5 %: out, after less than a thousand of its rows on average."""
    found = verdicts(100, 6000, 0.05, 0.10, 0.02)
    assert found["rollback"] >= 0.97
    assert found["promote"] == 0.0
    assert found["rows"] < 1000


def test_a_broken_candidate_costs_few_rows_and_a_clear_gain_is_quick() -> None:
    """90 % errors are out, and 45 points of gain in, after some forty rows of the candidate."""
    assert verdicts(50, 3000, 0.05, 0.9, 0.02)["rows"] < 60
    assert verdicts(50, 3000, 0.5, 0.05, 0.02) == pytest.approx(
        {"promote": 1.0, "rollback": 0.0, "continue": 0.0, "rows": 45}, abs=15
    )


def test_growing_shares_do_not_bias_the_difference() -> None:
    """Both variants get worse while the canary grows: raw means would blame the candidate, the estimate does not."""
    random = np.random.default_rng(3)
    rows = 9000
    propensity = np.repeat([0.05, 0.25, 0.5], rows // 3)
    chosen = random.random(rows) < propensity
    loss = (random.random(rows) < np.repeat([0.05, 0.15, 0.4], rows // 3)).astype(float)
    raw = loss[chosen].mean() - loss[~chosen].mean()
    found = difference(Observations(loss, chosen, propensity))
    assert raw > 0.05
    assert abs(found.estimate) < 0.03
    assert found.lower < 0 < found.upper


def test_no_verdict_before_both_variants_have_rows() -> None:
    """Few rows decide nothing, and the verdict says how many there are."""
    seen = stream(np.random.default_rng(0), 100, 0.0, 1.0)
    verdict = decide(seen, margin=0.02)
    assert verdict.decision == "continue"
    assert str(verdict.candidate_rows) in verdict.reason


def test_a_broken_split_is_not_promoted() -> None:
    """When the candidate gets far fewer rows than planned, nothing is concluded from them."""
    random = np.random.default_rng(0)
    rows = 4000
    chosen = random.random(rows) < 0.3
    seen = Observations((random.random(rows) < 0.05).astype(float), chosen, np.full(rows, 0.5))
    verdict = decide(seen, margin=0.5)
    assert verdict.decision == "continue"
    assert "sample ratio mismatch" in verdict.reason


def test_sample_ratio_alarms_rarely_under_the_plan() -> None:
    """Under the planned split, p is below 0.001 in about one of a thousand samples."""
    random = np.random.default_rng(0)
    low = sum(sample_ratio_p(random.random(2000) < 0.25, np.full(2000, 0.25)) < 0.001 for _ in range(1000))
    assert low <= 5


def test_a_verdict_states_what_it_rests_on() -> None:
    """Method, alpha, margin, rows and looks are part of the verdict."""
    verdict = decide(stream(np.random.default_rng(0), 3000, 0.05, 0.9), margin=0.02, alpha=0.01, looks=7)
    assert (verdict.alpha, verdict.margin, verdict.looks) == (0.01, 0.02, 7)
    assert verdict.champion_rows + verdict.candidate_rows == 3000
    assert "confidence sequence" in verdict.method
