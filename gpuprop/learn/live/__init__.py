"""A network as it learns, to look at: a run live in a browser, and a training as an animation.

``snapshot``   what one moment of a run looks like: history, first-layer weights, current mistakes; a callback writes it
``server``     ``gpuprop watch``: a page on this machine that shows a run while it goes
``frames``     a small network epoch by epoch: weights, activations, decision boundary, loss; a callback records it
``animation``  the frames as a GIF, or as a page with a slider
"""
