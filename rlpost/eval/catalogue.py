"""The benchmarks that have a name: their data on the hub, their prompts with sources, their rewards.

Prompts are those of the field's own tools, so that scores compare: each is named with its source, also in
docs/evaluation.md. Left out: few-shot examples as text (they are taken from a data set's own training split).
"""

from __future__ import annotations

from rlpost.envs.registry import ENVIRONMENTS
from rlpost.eval import columns
from rlpost.eval.benchmark import Benchmark, Source
from rlpost.eval.evalplus import humaneval_plus, mbpp_plus

_BOXED = "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
_MINERVA = "Problem:\n{question}\n\nSolution:"
_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
_MATH = "EleutherAI/hendrycks_math"
_MATH_PROMPTS = "chat: Qwen2.5-Math's; base: Minerva's (Lewkowycz et al. 2022, appendix D.2)"
_FUNCTION_ENDS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")


def _mathematics(name: str, about: str, *sources: Source, row: object = columns.mathematics, tokens: int) -> Benchmark:
    return Benchmark(
        name=name,
        about=f"{about}. Prompts: {_MATH_PROMPTS}",
        sources=sources,
        row=row,  # type: ignore[arg-type]
        prompt=_BOXED,
        base_prompt=_MINERVA,
        shot="{solution}",
        shot_sources=tuple(Source(f"{_MATH}:{subject}", "train") for subject in _SUBJECTS),
        stop=("\nProblem:",),
        reward="math",
        max_new_tokens=tokens,
    )


_SVAMP_AND_GSM8K = {
    "prompt": _BOXED,
    "base_prompt": "Question: {question}\nAnswer:",
    "stop": ("Question:",),
    "reward": "math",
    "max_new_tokens": 512,
}
_WORDS = "Prompts: chat: Qwen2.5-Math's; base: lm-evaluation-harness' (task gsm8k)"

GSM8K = Benchmark(
    name="gsm8k",
    about=f"GSM8K (Cobbe et al. 2021), 1,319 questions. {_WORDS}",
    sources=(Source("openai/gsm8k:main"),),
    row=columns.gsm8k,
    shot="{solution}\n#### {answer}",
    shot_sources=(Source("openai/gsm8k:main", "train"),),
    **_SVAMP_AND_GSM8K,  # type: ignore[arg-type]
)
SVAMP = Benchmark(
    name="svamp",
    about=f"SVAMP (Patel et al. 2021): 300 questions of the hub's test split, 1,000 of SVAMP.json. {_WORDS}",
    sources=(Source("ChilleD/SVAMP"),),
    row=columns.svamp,
    shot="The answer is {answer}.",
    shot_sources=(Source("ChilleD/SVAMP", "train"),),
    **_SVAMP_AND_GSM8K,  # type: ignore[arg-type]
)
MATHEMATICS = (
    _mathematics("math500", "MATH-500 (Lightman et al. 2023)", Source("HuggingFaceH4/MATH-500"), tokens=2048),
    _mathematics(
        "math",
        "MATH (Hendrycks et al. 2021), 5,000 questions; from a folder of its own .json files or rows",
        *(Source(f"{_MATH}:{subject}") for subject in _SUBJECTS),
        tokens=2048,
    ),
    _mathematics("aime24", "AIME 2024, 30 questions", Source("HuggingFaceH4/aime_2024", "train"), tokens=8192),
    _mathematics("aime25", "AIME 2025, 30 questions", Source("math-ai/aime25"), tokens=8192),
    _mathematics("amc23", "AMC 12 2023, 40 questions", Source("math-ai/amc23"), tokens=4096),
    _mathematics("minerva", "Minerva's OCWCourses, 272 questions", Source("math-ai/minervamath"), tokens=2048),
    _mathematics(
        "olympiadbench",
        "OlympiadBench (He et al. 2024), open-ended English text-only mathematics, 674 questions",
        Source("Hothan/OlympiadBench:OE_TO_maths_en_COMP", "train"),
        row=columns.olympiad,
        tokens=4096,
    ),
)


def _functions(name: str, about: str, source: str, row: object) -> Benchmark:
    return Benchmark(
        name=name,
        about=f"{about}, 164 functions. Prompts: chat: EvalPlus'; base: the function's head without its last newline "
        "(bigcode-evaluation-harness), stops of Chen et al.",
        sources=(Source(source),),
        row=row,  # type: ignore[arg-type]
        prompt="Please provide a self-contained Python script that solves the following problem in a markdown code "
        "block:\n```python\n{prompt}\n```",
        base_prompt="{head}",
        stop=_FUNCTION_ENDS,
        reward="code",
        max_new_tokens=768,
    )


def _programs(name: str, about: str, source: Source, row: object) -> Benchmark:
    return Benchmark(
        name=name,
        about=f"{about}. Prompts: chat: EvalPlus'; base: that of Austin et al. 2021, examples from ids 2 to 4",
        sources=(source,),
        row=row,  # type: ignore[arg-type]
        prompt="Please provide a self-contained Python script that solves the following problem in a markdown code "
        'block:\n```\n"""\n{text}\n{first_test}\n"""\n```',
        base_prompt="You are an expert Python programmer, and here is your task: {text} Your code should pass these "
        "tests:\n\n{tests}\n[BEGIN]\n",
        shot="{solution}\n[DONE]",
        shot_sources=(Source("google-research-datasets/mbpp:full", "prompt"),),
        stop=("[DONE]", "\nYou are an expert"),
        reward="code",
        max_new_tokens=768,
    )


CODE = (
    _functions("humaneval", "HumanEval (Chen et al. 2021)", "openai/openai_humaneval", columns.humaneval),
    _functions("humaneval+", "HumanEval+ (Liu et al. 2023)", "evalplus/humanevalplus", humaneval_plus),
    _programs(
        "mbpp",
        "MBPP (Austin et al. 2021), the 500 of ids 11 to 510 (or the sanitized file, whole)",
        Source("google-research-datasets/mbpp:full"),
        columns.mbpp,
    ),
    _programs("mbpp+", "MBPP+ (Liu et al. 2023), 378 programs", Source("evalplus/mbppplus"), mbpp_plus),
)

_THINK = "Think first, then give the answer alone between <answer> and </answer>."
PUZZLES = (
    Benchmark(
        name="countdown",
        about="Countdown in TinyZero's or d1's form; solved: the exact value. Prompt: TinyZero's",
        sources=(Source("Jiayi-Pan/Countdown-Tasks-3to4", "train"),),
        row=columns.countdown,
        prompt="Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic "
        "operations (+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. And "
        "return the final answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 </answer>.",
        base_prompt="Using the numbers {numbers}, create an equation that equals {target}, each number used once.\n"
        f"{_THINK}\n",
        stop=("</answer>\n",),
        reward="countdown",
    ),
    Benchmark(
        name="sudoku",
        about="4x4 Sudoku in d1's form; solved: the whole grid, reward: share of empty cells. Prompt: d1's rules",
        row=columns.sudoku,
        prompt="Please solve the following 4x4 Sudoku puzzle. The puzzle is provided as a 16-character string reading "
        'left-to-right, top-to-bottom, where "0" represents empty cells.\n\n'
        "Rules:\n- Fill empty cells with digits 1-4\n"
        "- Each row, each column and each 2x2 box must contain the digits 1-4 exactly once\n\n"
        f"{_THINK} The answer is the complete 16-character string.\n\nPuzzle: {{puzzle}}",
        base_prompt="4x4 Sudoku, 0 is an empty cell; the answer is 16 digits between <answer> and </answer>.\n"
        "Puzzle: {puzzle}\nSolution:",
        shot=" <answer>{solution}</answer>",
        stop=("\n",),
        reward="sudoku",
        max_new_tokens=512,
    ),
)
PAYMENTS = Benchmark(
    name="payments",
    about="the quickstart's world of two apps, 256 held-out tasks; several turns",
    env=ENVIRONMENTS.locate("payments"),
    max_new_tokens=12,
    max_turns=5,
    max_context=512,
)
_WORLD = ENVIRONMENTS.locate("appworld")
WORLDS = (
    PAYMENTS,
    Benchmark(
        name="errands",
        about="our world of everyday apps with AppWorld's surface; score: task goal completion, sgc: of scenarios",
        env=_WORLD,
        max_new_tokens=1024,
        max_turns=40,
        max_context=32_768,
    ),
    Benchmark(
        name="appworld",
        about="AppWorld (Trivedi et al. 2024), installed apart; score: task goal completion (TGC), sgc: of scenarios",
        env=_WORLD,
        env_options={"eval": "test_normal", "appworld": {}},
        max_new_tokens=1024,
        max_turns=40,
        max_context=32_768,
    ),
)
CATALOGUE = {benchmark.name: benchmark for benchmark in (GSM8K, SVAMP, *MATHEMATICS, *CODE, *PUZZLES, *WORLDS)}
