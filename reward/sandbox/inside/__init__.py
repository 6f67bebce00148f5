"""What runs on the far side of the sandbox's border: the zygote, a keeper a program, its init, and the program.

Everything here is imported once, in the zygote, before it walls itself in. Left out: anything of the host's side.
"""
