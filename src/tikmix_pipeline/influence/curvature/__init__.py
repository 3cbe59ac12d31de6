"""Curvatures C of the loss, one file per mathematical object, in two steps.

`fit.fit_factors` needs backward passes and finds the factors, which are an artifact; `build.build_curvature` needs
none and turns them into blocks in their eigenbasis, to which f(C) is applied.
"""
