"""The colours of labels in a mask."""

BACKGROUND = "background"
"""Name of the first label."""
PALETTE = (
    "#FFFFFF",
    "#23A436",
    "#14A3B3",
    "#F76902",
    "#9380FF",
    "#BD10E0",
    "#467CE6",
    "#A09308",
    "#0094BD",
    "#CC7700",
)
"""Colours by label index, as the original service had them; background first."""
LEVELS = ((0.45, 0.95), (1.0, 0.7), (1.0, 0.55), (0.75, 0.85), (0.8, 0.6), (0.9, 0.4))
"""Saturation and brightness (HSV) of generated colours, in turn."""


def color_of(index: int) -> str:
    """The colour of label `index` (0 is background): the palette's, and beyond it a generated one.

    Generated colours walk the hue circle by the golden angle (137.508 degrees), so that neighbours are far apart, and
    change between six levels of saturation and brightness: six divides none of the numbers of steps after which the
    angle comes close to a hue it had (Fibonacci numbers up to 89). The rule never changes: clients may keep legends.
    """
    if index < len(PALETTE):
        return PALETTE[index]
    step = index - len(PALETTE)
    hue, (saturation, value) = (step * 137.508) % 360 / 60, LEVELS[step % len(LEVELS)]
    # HSV to RGB by the closed form f(n) = v - v*s*max(0, min(k, 4 - k, 1)), k = (n + hue/60) mod 6, n = 5, 3, 1.
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(round(255 * (value - value * saturation * max(0.0, min(k, 4 - k, 1.0)))))
    return "#{:02X}{:02X}{:02X}".format(*channels)
