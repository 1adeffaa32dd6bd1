"""Shows a network while it learns: a run live in a browser, and a training as an animation.

``snapshot``   a callback that writes history, first-layer weights and current mistakes of a run into its folder
``server``     ``gpuprop watch``: a page on this machine that shows a run while it goes
``frames``     a callback that records a small network epoch by epoch: weights, activations, decision boundary, loss
``animation``  the frames as a GIF, or as a page with a slider
"""
