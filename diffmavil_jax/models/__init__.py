"""The networks and their front end: deterministic given masks, time steps and noise, without data or losses.

Letters in shapes: b clips, n tokens of a modality, k visible tokens, z the same with a class token
before them if the encoder has one, m decoded (masked) tokens, p values of a patch, o values of a target,
d width, q queries, h heads; t time, f mel bins, y x of a frame.
"""
