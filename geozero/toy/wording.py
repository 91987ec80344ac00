"""How everyday questions are worded: templates and hints, none of which the evaluation uses."""

from __future__ import annotations

SYNONYMS = {
    "building": ("building", "building", "house"),
    "vehicle": ("vehicle", "vehicle", "car"),
    "ship": ("ship", "ship", "boat"),
    "airplane": ("airplane", "airplane", "plane"),
    "storage tank": ("storage tank", "storage tank", "tank"),
}
# {} the noun, {a} with its article, {s} plural, {at} where one looks: "", "here", "in the picture", …
PRESENCE = (
    "Can you see any {s}{at}?",
    "Is there any {} to be seen?",
    "Is there any {}{at}?",
    "Is there some {}{at}?",
    "Is there at least one {}{at}?",
    "Are there any {s}{at}?",
    "Are there {s}{at}?",
    "Are some {s} present{at}?",
    "Are {s} present{at}?",
    "Are {s} to be found{at}?",
    "Is any {} present{at}?",
    "Is some {} shown{at}?",
    "Is one {} or more present{at}?",
    "Does this picture show some {}?",
    "Does this picture show {a}?",
    "Do you notice any {}?",
    "Do you see {a}{at}?",
    "Does the scene contain {a}?",
    "Does {a} appear{at}?",
    "Tell me whether {a} is visible.",
    "Tell me if {a} is present{at}.",
    "Could you spot {a} from above?",
    "Have you found any {}?",
    "Is any {} visible?",
    "Would you find at least one {}?",
    "Is some {} to be found here?",
    "Say if there is {a}{at}.",
)
COUNT = (
    "What number of {s} do you count?",
    "What number of {s} is there{at}?",
    "Count the {s}.",
    "Count the {s}{at}.",
    "Tell me how many {s} you see.",
    "Tell me how many {s} there are{at}.",
    "Give the count of {s}.",
    "Give the number of {s}{at}.",
    "How large is the number of {s}?",
    "How many of the {s} are there{at}?",
    "How often do {s} occur{at}?",
    "The count of {s}, please?",
    "The number of {s}{at}?",
    "Say how often {s} occur.",
    "Say how many {s} are there.",
    "What count of {s} is shown?",
)
COMPARISON = {
    "more": (
        "Do {} outnumber {}?",
        "Do you see more {} than {}?",
        "Are {} more numerous than {}?",
        "Are more {} than {} there{at}?",
        "Are more {} present than {}?",
        "Is there more of {} than of {}?",
        "Is the count of {} larger than the count of {}?",
        "Tell me if there are more {} than {}.",
        "Does it hold that there are more {} than {}?",
    ),
    "less": (
        "Are {} fewer than {}?",
        "Do you see fewer {} than {}?",
        "Does the picture show less {} than {}?",
        "Are less {} than {} there{at}?",
        "Are fewer {} present than {}?",
        "Is there less of {} than of {}?",
        "Is the count of {} smaller than the count of {}?",
        "Tell me if there are less {} than {}.",
        "Does it hold that there are less {} than {}?",
    ),
    "equal": (
        "Are there as many {} as {}?",
        "Do you count equally many {} and {}?",
        "Is the count of {} the same as that of {}?",
        "Is the count of {} equal to the count of {}?",
        "Are the numbers of {} and {} equal{at}?",
        "Tell me if the number of {} is equal to the number of {}.",
        "Does the number of {} equal the number of {}?",
        "Are the {} as many as the {}?",
    ),
}
AT = ("", "", "", " here", " in the picture", " in this scene", " in view", " in the photo", " on the ground")
SCENE = (
    "Which kind of place is this?",
    "What place do you see?",
    "Name the sort of place shown here.",
    "What type of land use is it?",
    "Say what this place is.",
    "Under which heading does this place fall?",
    "Classify this place.",
    "Name the class of the picture.",
    "Find the class that fits.",
    "To which class does the scene belong?",
    "Label the picture.",
)
LAND = (
    "Is this the town or the countryside, urban or rural?",
    "Urban or rural land?",
    "Does it look rural or urban?",
    "Would you call this place rural, or urban?",
    "Is the area urban, or is it rural?",
    "Is this a rural or an urban place?",
    "Rural or urban area?",
    "Tell me if the land is urban or rural.",
)
WHERE = (
    "Where is {}?",
    "Where do you see {}?",
    "Point out {} with a box.",
    "Show me {}.",
    "Mark {}.",
    "In which box lies {}?",
    "At what position is {}?",
    "Search for {}.",
    "Draw a box around {}.",
)
COLOUR = ("What colour is {}?", "Tell me the colour of {}.", "Which colour has {}?")
CAPTION = (
    "What do you see?",
    "Say briefly what is here.",
    "What is in this picture?",
    "Sum the picture up.",
    "Tell somebody what is here.",
)
# How a question may go on: people say what form of answer they want, in many ways or not at all.
CLOSED_HINTS = (
    "",
    "",
    "Keep it short.",
    "One word will do.",
    "Be brief.",
    "Just the word, please.",
    "Answer in a word or two.",
    "Say it in a short phrase.",
    "Respond with a single term.",
    "Respond in a single word.",
    "One short word is enough.",
    "Use a single word or a short phrase.",
    "A word or a phrase, no more.",
)
COUNT_HINTS = (*CLOSED_HINTS, "As a number.", "Just the number, please.")
BOX_HINTS = (
    "",
    "Answer by a box [x1, y1, x2, y2].",
    "Write the box as [x1, y1, x2, y2].",
    "Use corners [x1, y1, x2, y2].",
    "Box: [x1, y1, x2, y2].",
)
SCENE_HINTS = (  # {} the names to choose from
    "",
    "Options: {}.",
    "Pick from {}.",
    "It is one out of {}.",
    "Answer by one of: {}.",
    "Sort it into one of these kinds: {}.",
    "These are the classes: {}. Name one.",
    "One of these names fits: {}.\nWrite that name.",
)
CAPTION_HINTS = ("", "", "Use a single sentence.", "Keep it short.", "A sentence will do.", "Write a sentence or two.")
SIDES = {"left": "left of", "right": "right of", "above": "higher up than", "below": "lower down than"}
EXTREMES = {"largest": "biggest", "smallest": "tiniest"}
