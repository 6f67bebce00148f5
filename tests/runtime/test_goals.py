"""Task and scenario goal completion by hand, and what the engines' totals say of a step."""

from __future__ import annotations

from dataclasses import dataclass

from rlpost.goals import goal_completion
from rlpost.step_metrics import EngineMetrics


@dataclass
class Episode:
    task_id: str
    success: bool
    difficulty: int = 1

    @property
    def scenario(self) -> str:
        return self.task_id.rpartition("_")[0]


def test_a_scenario_counts_when_all_its_variants_are_solved() -> None:
    episodes = [Episode("a_1", True), Episode("a_2", True), Episode("a_3", True), Episode("b_1", True, 2)]
    episodes += [Episode("b_2", False, 2), Episode("b_3", True, 2)]
    assert goal_completion(episodes) == {
        "tgc": 5 / 6,
        "sgc": 1 / 2,
        "tgc/difficulty_1": 1.0,
        "sgc/difficulty_1": 1.0,
        "tgc/difficulty_2": 2 / 3,
        "sgc/difficulty_2": 0.0,
    }


def test_repeated_episodes_are_held_against_each_other_in_turn() -> None:
    # variant 1: solved, solved; variant 2: solved, not -> 1/2; a third episode of variant 1 has no partner
    episodes = [Episode("a_1", True), Episode("a_1", True), Episode("a_2", True), Episode("a_2", False)]
    assert goal_completion([*episodes, Episode("a_1", False)])["sgc"] == 0.5


def test_episodes_without_a_scenario_are_left_out() -> None:
    assert goal_completion([Episode("plain", True)]) == {}


def test_engine_numbers_are_of_the_step() -> None:
    engines = EngineMetrics()
    first = {"prompt_tokens": 100.0, "cached_tokens": 20.0, "tokens": 60.0, "steps": 10.0}
    assert engines.since([first]) == {"engine/prefix_cache_hit_rate": 0.2, "engine/tokens_a_step": 6.0}
    second = {"prompt_tokens": 200.0, "cached_tokens": 110.0, "tokens": 100.0, "steps": 15.0}
    assert engines.since([second]) == {"engine/prefix_cache_hit_rate": 0.9, "engine/tokens_a_step": 8.0}
    assert engines.since([first]) == {}  # a restarted worker counts from 0 again
    assert engines.since([{}]) == {}
