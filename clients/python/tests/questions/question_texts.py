"""Inputs of the tests of questions."""

CLEAN = "When John and Mary went to the store, John gave a drink to"
CORRUPT = "When John and Mary went to the store, Mary gave a drink to"
EIFFEL = "The Eiffel Tower is in the city of"

SAE_LAYER, D_SAE, SAE_K = 12, 64, 4

MOODS = {
    True: [
        "I am so happy today, everything is wonderful.",
        "What a delightful and joyful surprise.",
        "She laughed with delight and danced.",
        "I love this beautiful morning.",
    ],
    False: [
        "I am so sad today, everything is terrible.",
        "What a dreadful and painful loss.",
        "She wept with grief and trembled.",
        "I hate this miserable morning.",
    ],
}
