"""The four ways of speaking of the generated corpora: sentence patterns and habits, as data.

`mmt_jax.scenes.grammar` says what the slots mean.
"""

from __future__ import annotations

from mmt_jax.scenes.grammar import Style

PLAIN = Style(
    words=(0.78, 0.13, 0.06, 0.03),
    colour=0.95,
    first=(
        (3, "{a} {a>b} {b}"),
        (3, "{a} {verb} {a>b} {b}"),
        (2, "{a} {a>b} {b} {on_bg}"),
        (2, "{a} {verb} {a>b} {b} {on_bg}"),
        (2, "{a} {between} {b} and {c}"),
        (2, "{a} is {a>b} {b} and {c} is {c@}"),
        (2, "there is {a} {a>b} {b} and {b>c} {c}"),
        (2, "{a}, {b} and {c} {on_bg}"),
        (2, "{group} {on_bg} with {a}"),
        (1, "{group} and {a} {a@}"),
        (1, "{bg} with {a} {a>b} {b}"),
        (1, "{a} {a@} and {b} {b@}"),
    ),
    simple=((3, "{a} {a>b} {b}"), (2, "{a} and {b}"), (1, "{a}, {b} and {c}")),
)

ALT_TEXT = Style(
    words=(0.64, 0.19, 0.11, 0.06),
    hypernym=0.15,
    colour=0.9,
    first=(
        (3, "{a} {a>b} {b}"),
        (2, "{a} {a>b} {b} {on_bg}"),
        (2, "{a} with {b} and {c}"),
        (2, "{a} and {b} isolated {on_bg}"),
        (2, "illustration of {a} {a>b} {b}"),
        (1, "vector set of {group} with {a}"),
        (1, "stock photo : {a} {a>b} {b} {on_bg}"),
        (1, "close up of {a} {between} {b} and {c}"),
        (1, "{group} {on_bg} with copy space"),
        (1, "abstract composition with {a} {a@}"),
    ),
    simple=(
        (3, "{a} {a>b} {b}"),
        (2, "{a} and {b}"),
        (1, "{a} with {b} and {c}"),
        (1, "illustration of {a} {a>b} {b}"),
    ),
)

CHAT = Style(
    words=(0.14, 0.20, 0.30, 0.36),
    hypernym=0.4,
    size=0.25,
    colour=0.5,
    texture=0.2,
    first=(
        (2, "i just love {this a} so much"),
        (2, "look at {my a} , taken with my new camera"),
        (2, "me and {my a} {on_bg} last summer"),
        (2, "saw {a} {a>b} {b} on my way home today"),
        (2, "here is {my a} {a>b} {that b} we found , so cute"),
        (2, "our trip to see {the a} and {the b}"),
        (1, "not sure what {this a} was doing {on_bg}"),
        (1, "my sister wanted {group} for her birthday"),
        (1, "i was told {this a} {verb} {a>b} {the b} , who knew"),
        (1, "{bg} as seen from our hotel , with {a}"),
    ),
    simple=(
        (2, "i just love {this a} so much"),
        (2, "look at {my a} and {my b}"),
        (2, "saw {a} {a>b} {b} on my way home today"),
        (1, "our trip to see {the a} and {the b}"),
    ),
)

PHRASES = Style(
    words=(0.70, 0.18, 0.08, 0.04),
    texture=0.4,
    first=(
        (4, "{a}"),
        (3, "{a} {a>b} {b}"),
        (2, "{a} {a@}"),
        (2, "{a} {on_bg}"),
        (2, "the {noun a} is {adj a}"),
        (1, "{group}"),
    ),
    simple=((4, "{a}"), (3, "{a} {a>b} {b}")),
)

NARRATION = Style(
    words=(0.66, 0.20, 0.10, 0.04),
    texture=0.4,
    first=(
        (2, "in this image we can see {a} and {b} ."),
        (2, "in the picture i can see {a} {a>b} {b} ."),
        (1, "here we can see {a} and there is {b} {b@} ."),
        (1, "in this image there is {a} {a@} ."),
    ),
    more=(
        (2, "{a@} there is {a} ."),
        (2, "beside this we can also see {a} {a@} ."),
        (2, "there is {a} which {verb} {a>t} {the t} ."),
        (2, "{a} {verb} {a>b} {b} ."),
        (1, "then we find {a} ."),
    ),
    last=(
        (2, "in the background there is {bg} ."),
        (1, "all of this is {on_bg} ."),
        (1, "altogether there are {group} {on_bg} ."),
    ),
    simple=(
        (2, "in this image we can see {a} and {b} ."),
        (2, "in the picture i can see {a} {a>b} {b} ."),
    ),
    simple_more=((2, "then we find {a} ."), (2, "there is {a} which {verb} {a>t} {the t} .")),
)
