"""ScaleBiO's trainer: no rollouts, the same learner parts.

    data.py     files of examples become token sequences; what is wrong with them is said here, before anything starts
    learner.py  one rank: u, w and the source weights, one step of each at a time; its Ray actor
    finetune.py the final fine-tuning by learned and by uniform weights, and their comparison
    trainer.py  the whole run, from the recipe to source_weights.json

Left out: the equations (algorithms/scalebio.py).
"""
