"""A page on which a small network can be changed by hand, and every number of it changes with it.

``javascript``  turns the formulas of the records in `gpuprop.maths` into functions of a page
``problems``    what a page holds: a network, rows of data, and how they are trained
``page``        writes the page; ``play.html`` is its body, which runs the algorithm in its order
"""

from gpuprop.learn.play.page import render
from gpuprop.learn.play.problems import Problem, problem, worked_problem, xor_problem

__all__ = ["Problem", "problem", "render", "worked_problem", "xor_problem"]
