"""Vocabulary of the text sample: words of topics and moods, and title patterns, for each domain.

The words of a topic differ between the domains and share only their meaning: knowledge about a topic can be
transferred only through the pretrained language model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TopicWords:
    """Words of a topic in one domain, by part of speech."""

    nouns: tuple[str, ...]
    actions: tuple[str, ...]
    adjectives: tuple[str, ...]


@dataclass(frozen=True)
class DomainWords:
    """Vocabulary of a domain; topics and moods have the same order in both domains."""

    topics: tuple[TopicWords, ...]
    moods: tuple[tuple[str, ...], ...]
    fillers: tuple[str, ...]
    patterns: tuple[str, ...]


# For each topic two lines for the source and two for the target: nouns, then "actions / adjectives".
_TOPICS = """\
music
    violin orchestra melody drummer symphony chorus trumpet rhythm opera composer flute banjo
    singing composing strumming humming / melodic acoustic symphonic choral
    guitar piano concert singer jazz band song cello album harmony saxophone ballad
    drumming rapping improvising whistling / musical lyrical orchestral tuneful
cooking
    soup oven garlic pasta chef butter recipe onion sauce bakery noodles pepper
    baking frying roasting stirring / tasty spicy crispy savory
    kitchen bread cheese stew dinner flour salad spaghetti cake dough casserole cinnamon
    cooking grilling simmering seasoning / delicious buttery toasted flavorful
space
    rocket planet astronaut telescope moon comet galaxy satellite orbit asteroid nebula meteor
    orbiting stargazing launching docking / lunar stellar interplanetary galactic
    spaceship astronomy mars jupiter saturn cosmos star universe spacecraft eclipse constellation astronomer
    spacewalking exploring spacefaring colliding / solar cosmic martian celestial
football
    goalkeeper striker penalty referee stadium midfielder league touchdown quarterback fans kickoff tackle
    scoring dribbling defending kicking / unbeaten relegated offside sporting
    football soccer goal coach team championship defender cup tournament linebacker player match
    passing heading intercepting cheering / winning athletic defeated victorious
gardening
    roses soil shrub seedlings compost tulips hedge lawn weeds greenhouse petals mulch
    pruning watering mowing sprouting / leafy blooming botanical thorny
    garden flowers plants daisies orchid gardener bulbs trowel ivy lilies fern herbs
    planting weeding digging fertilizing / floral flowering overgrown rooted
finance
    stocks bank inflation investor dividend mortgage currency shareholder budget debt treasury bonds
    investing borrowing lending trading / fiscal bankrupt monetary taxable
    money loan savings market credit broker finance profit pension interest wealth economy
    saving banking budgeting speculating / financial economic profitable solvent
medicine
    surgeon vaccine hospital patient tumor antibiotic nurse diagnosis infection virus clinic fever
    healing vaccinating diagnosing coughing / surgical infectious chronic clinical
    doctor medicine disease therapy pharmacy cancer diabetes symptom ambulance pill physician allergy
    treating curing prescribing recovering / medical contagious healthy therapeutic
law
    judge lawsuit verdict attorney courtroom jury plaintiff appeal prosecutor statute felony trial
    suing prosecuting testifying sentencing / guilty judicial unlawful acquitted
    lawyer court law crime justice defendant prison legislation evidence contract solicitor witness
    pleading litigating convicting appealing / legal criminal innocent illegal
travel
    passport airport luggage tourists hotel flight resort itinerary cruise visa souvenir suitcase
    boarding sightseeing backpacking departing / foreign scenic overseas tropical
    vacation journey trip tourism destination airline hostel map island holiday traveler sights
    traveling touring wandering roaming / exotic remote faraway international
fashion
    dress runway skirt designer handbag fabric jacket boutique stylist jeans scarf silk
    sewing dressing tailoring knitting / fashionable stylish woven trendy
    fashion clothes shoes coat jewelry model shirt necklace sweater outfit trousers textile
    wearing stitching accessorizing modeling / chic glamorous fitted embroidered
cinema
    actor film screenplay premiere director hollywood sequel trailer audience oscar blockbuster studio
    filming acting casting directing / cinematic animated starring dramatic
    movie cinema actress scene thriller documentary script theater camera stuntman screen plot
    screening rehearsing dubbing editing / filmed scripted theatrical televised
weather
    storm rainfall hurricane forecast thunder snowfall drought humidity blizzard tornado breeze fog
    raining snowing freezing drizzling / cloudy windy chilly stormy
    weather rain snow lightning clouds sunshine temperature wind climate hail monsoon frost
    pouring thundering melting thawing / rainy sunny humid foggy
cars
    engine sedan tires brakes driver highway mechanic garage dashboard horsepower motorcycle truck
    driving steering accelerating parking / automotive turbocharged speeding motorized
    car automobile wheels vehicle gearbox bumper racer van motor convertible windshield minivan
    braking refueling overtaking racing / vehicular fast diesel drivable
computing
    software laptop programmer keyboard database hacker server algorithm internet browser processor malware
    coding debugging downloading encrypting / digital wireless programmable computational
    computer code website programming app network password monitor chip developer robot email
    hacking typing uploading compiling / online virtual automated electronic
pets
    puppy kitten leash terrier veterinarian hamster collar kennel poodle paws bulldog parrot
    barking petting purring fetching / furry obedient fluffy housebroken
    dog cat pets rabbit goldfish spaniel whiskers labrador hound tail beagle gerbil
    meowing walking grooming wagging / playful tame loyal cuddly
farming
    tractor harvest cattle wheat barn rancher sheep crops dairy orchard hay livestock
    plowing milking harvesting grazing / agricultural rural fertile pastoral
    farm farmer cows corn pigs barley agriculture field grain chickens silo pasture
    farming sowing herding threshing / organic irrigated grassy arable
painting
    canvas watercolor gallery portrait sculptor easel museum mural brushstrokes palette exhibition fresco
    painting sketching sculpting exhibiting / artistic abstract surrealist painted
    art artist painter drawing sculpture landscape masterpiece pottery sketch illustration pastels statue
    coloring carving illustrating engraving / colorful expressive impressionist sculpted
sailing
    yacht harbor anchor captain rudder regatta mast sailor voyage lighthouse deck schooner
    sailing mooring rowing drifting / nautical seaworthy offshore adrift
    boat ship ferry port crew canoe sails vessel marina navy kayak hull
    navigating paddling anchoring cruising / maritime floating seafaring aboard
military
    soldier battalion missile tank general troops battlefield rifle sergeant bomber infantry trench
    fighting invading bombing ambushing / armed wartime besieged tactical
    army war weapons combat commander battle artillery regiment grenade invasion veteran fortress
    attacking shooting marching deploying / military strategic fortified warlike
religion
    church bishop prayer bible temple monk priest gospel pilgrimage mosque hymn monastery
    praying worshipping baptizing preaching / sacred holy biblical devout
    religion god faith chapel pastor cathedral scripture rabbi saint sermon angel parish
    blessing believing confessing meditating / religious spiritual divine pious
education
    teacher classroom homework pupils university textbook exam scholarship professor diploma campus tuition
    teaching studying grading lecturing / academic scholarly illiterate undergraduate
    school student education college lesson curriculum kindergarten learning lecture library tutor graduation
    reading memorizing tutoring enrolling / educational educated studious scholastic
mountains
    summit glacier climber trail ridge avalanche peak hikers cliff altitude alps campsite
    climbing hiking ascending trekking / alpine rocky steep mountainous
    mountain everest hill valley backpack tent rope slope canyon himalayas ledge wilderness
    scaling camping descending scrambling / rugged towering snowy craggy
games
    chess puzzle dice pawn checkers poker jigsaw marbles crossword rook gambler domino
    shuffling bluffing checkmating guessing / puzzling solvable unbeatable tied
    cards game riddle bingo chessboard sudoku casino dominoes solitaire backgammon joker bets
    playing gambling betting dealing / tricky gaming competitive lucky
drinks
    wine espresso brewery whiskey cocktail vineyard lemonade bartender champagne cider barrel mug
    brewing sipping gulping fermenting / alcoholic frothy caffeinated drunk
    coffee beer tea juice bottle pub vodka grapes soda winery milkshake bourbon
    drinking tasting distilling toasting / bubbly fizzy thirsty refreshing
sea life
    whale coral shark dolphin octopus reef lobster seaweed jellyfish salmon walrus plankton
    swimming diving spawning snorkeling / marine underwater aquatic undersea
    ocean fish seal turtle crab squid tuna oyster starfish seahorse shrimp aquarium
    fishing splashing surfacing wading / coastal tidal deep-sea oceanic
building
    concrete bricks scaffold carpenter architect plumbing crane roof foundation cement hammer skyscraper
    building drilling welding plastering / wooden structural demolished brick
    construction house architecture wall tower beams lumber contractor nails plaster ceiling bridge
    hammering bricklaying renovating sawing / architectural unfinished reinforced insulated
politics
    senator ballot congress campaign parliament candidate governor referendum diplomat mayor embassy coalition
    voting campaigning lobbying governing / presidential democratic electoral partisan
    president election government minister democracy politician votes republic senate policy party chancellor
    electing debating legislating negotiating / political conservative liberal parliamentary
parenting
    baby toddler diaper nursery mother pregnancy stroller lullaby crib newborn midwife daycare
    parenting breastfeeding crawling babysitting / maternal infantile teething pregnant
    child infant parents father cradle birth nanny bottle-feeding family daughter pacifier twins
    nursing raising adopting cuddling / motherly fatherly unborn parental
"""

# For each mood one line of words for the source and one for the target.
_MOODS = """\
cheap
    affordable bargain low-cost discounted inexpensive thrifty
    cheap budget-friendly economical cut-price half-price frugal
funny
    hilarious comical silly amusing goofy laughable
    funny humorous comic witty ridiculous joking
frightening
    scary creepy terrifying eerie haunted spooky
    frightening horrifying ghostly sinister nightmarish menacing
for the young
    childish youthful juvenile teenage kiddie preschool
    young kids children's boyish adolescent kid-friendly
"""

_SOURCE_FILLERS = "today yesterday again nationwide overnight suddenly finally tonight"
_TARGET_FILLERS = "series edition collection episode guide set season companion"

_SOURCE_PATTERNS = (
    "{mood} {noun} meets {adjective} {other} {filler}",
    "Why {mood} {action} changed {noun} and {other}",
    "{adjective} {noun} makes {mood} news {filler}",
    "Report on {mood} {noun}, {action} and {other}",
    "{noun} returns {filler} after {mood} {adjective} {other}",
    "Town divided over {mood} {noun} and {action}",
)
_TARGET_PATTERNS = (
    "The {mood} {noun} podcast: {adjective} {other}",
    "{mood} box of {adjective} {noun} and {other}",
    "{action} with {noun}, the {mood} {filler}",
    "{mood} {filler} on {action} and {noun}",
    "{noun} and {other}: a {mood} {filler}",
    "{adjective} {noun} {filler}, {mood} {action}",
)


def _blocks(text: str) -> list[list[str]]:
    """The indented lines below each unindented heading."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(" "):
            blocks[-1].append(line)
        else:
            blocks.append([])
    return blocks


def _topic(nouns: str, others: str) -> TopicWords:
    actions, adjectives = others.split("/")
    return TopicWords(tuple(nouns.split()), tuple(actions.split()), tuple(adjectives.split()))


_TOPIC_LINES = _blocks(_TOPICS)
_MOOD_LINES = _blocks(_MOODS)

SOURCE_WORDS = DomainWords(
    tuple(_topic(lines[0], lines[1]) for lines in _TOPIC_LINES),
    tuple(tuple(lines[0].split()) for lines in _MOOD_LINES),
    tuple(_SOURCE_FILLERS.split()),
    _SOURCE_PATTERNS,
)
TARGET_WORDS = DomainWords(
    tuple(_topic(lines[2], lines[3]) for lines in _TOPIC_LINES),
    tuple(tuple(lines[1].split()) for lines in _MOOD_LINES),
    tuple(_TARGET_FILLERS.split()),
    _TARGET_PATTERNS,
)
