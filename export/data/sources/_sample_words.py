"""Movie titles of `sample`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["GENRES", "make_titles"]

# By genre: words for the beginning and for the end of a title.
_WORDS: dict[str, tuple[str, str]] = {
    "Action": (
        "Iron Rapid Burning Final Steel Savage Double Lethal Broken Midnight Thunder Rogue",
        "Strike Justice Pursuit Fury Bullet Squad Vengeance Highway Siege Target Blade Getaway",
    ),
    "Adventure": (
        "Lost Golden Hidden Forgotten Emerald Distant Savage Sunken Sacred Northern Wild Jungle",
        "River Temple Voyage Island Map Treasure Expedition Passage Mountain Caravan Idol Shore",
    ),
    "Animation": (
        "Tiny Magic Clockwork Paper Singing Sleepy Brave Sugar Rainbow Little Flying Moonlit",
        "Mouse Forest Balloon Kingdom Penguin Toymaker Dragon Lantern Bear Kite Puppet Garden",
    ),
    "Comedy": (
        "Crazy Runaway Wrong Reluctant Lucky Awkward Accidental Borrowed Noisy Perfect Odd Second",
        "Wedding Neighbor Vacation Roommate Butler Honeymoon Reunion Uncle Bachelor Office Twins",
    ),
    "Crime": (
        "Crooked Silent Dirty Velvet Stolen Harbor Cold Marked Uptown Loaded Smoky Blackmail",
        "Heist Alibi Witness Syndicate Informer Diamonds Ledger Verdict Detective Racket Warrant",
    ),
    "Documentary": (
        "Secret Unseen Living Untold Vanishing Human Inner Open Ancient True Rare Everyday",
        "Rivers Voices Cities Oceans Journeys Archives Machines Farmers Worlds Harvest Glaciers",
    ),
    "Drama": (
        "Quiet Autumn Broken Winter Distant Gentle Empty Unspoken Fading Tender Bitter Last",
        "Harvest Letters Promise Daughters Memory House Silence Confession Father Window Season",
    ),
    "Horror": (
        "Dead Hollow Crimson Whispering Haunted Buried Nameless Rotten Bleeding Black Screaming",
        "Cellar Manor Grave Curse Ritual Asylum Widow Shadows Crypt Orchard Doll Nightfall",
    ),
    "Romance": (
        "Sweet Parisian Moonlight Forever Summer Secret Tender Rainy Stolen Starry Blushing First",
        "Kiss Waltz Embrace Affair Valentine Rendezvous Serenade Heart Roses Proposal Dance Charm",
    ),
    "Sci-Fi": (
        "Quantum Lunar Solar Synthetic Cosmic Parallel Orbital Frozen Neon Zero Infinite Android",
        "Colony Signal Horizon Station Paradox Galaxy Drift Protocol Eclipse Frontier Contact",
    ),
    "War": (
        "Fallen Western Bloody Brave Burning Divided Eastern Silent Distant Ninth Scarlet Valiant",
        "Battalion Trench Regiment Bridge Armada Crossing Front Medal Convoy Garrison Bugle Truce",
    ),
    "Western": (
        "Dusty Lonesome Prairie Silver Outlaw Desert Rattlesnake Crooked Red Wandering Painted",
        "Canyon Sheriff Stagecoach Saddle Ranch Gunslinger Mesa Spurs Saloon Rider Creek Showdown",
    ),
}

GENRES: tuple[str, ...] = tuple(_WORDS)
_WORD_LISTS = tuple((before.split(), after.split()) for before, after in _WORDS.values())
_PATTERNS = ("{0} {1}", "The {0} {1}", "{1} of the {0} {2}", "{0} {1}, {0} {2}")


def make_titles(
    random: np.random.Generator,
    niches: npt.NDArray[np.int64],
    main_genres: Sequence[int],
    years: npt.NDArray[np.int64],
) -> list[str]:
    """Generate distinct titles with the year, such as `The Lunar Colony (1984)`.

    A repeated title becomes a sequel: `The Lunar Colony 2 (1986)`.

    Args:
        random: Random generator.
        niches: int64 `[num_candidates]`, niche of each candidate.
        main_genres: Position in `GENRES` of each niche's main genre.
        years: int64 `[num_candidates]`.
    """
    draws = random.random((len(niches), 4))
    parts: dict[str, int] = {}
    titles = []
    for niche, year, draw in zip(niches.tolist(), years.tolist(), draws.tolist(), strict=True):
        before, after = _WORD_LISTS[main_genres[niche]]
        first = int(draw[1] * len(after))
        second = (first + 1 + int(draw[3] * (len(after) - 1))) % len(after)
        name = _PATTERNS[int(draw[0] * len(_PATTERNS))].format(
            before[int(draw[2] * len(before))], after[first], after[second]
        )
        parts[name] = parts.get(name, 0) + 1
        number = f" {parts[name]}" if parts[name] > 1 else ""
        titles.append(f"{name}{number} ({year})")
    return titles
