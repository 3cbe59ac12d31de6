"""Curvatures C of the loss, one file per mathematical object; each preconditions a gradient by (C + λI)⁻¹."""
