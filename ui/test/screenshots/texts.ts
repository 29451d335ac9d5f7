/** The texts of the demonstration: three groups that a small model tells apart. */

export interface Group {
  label: string;
  metadata: Record<string, unknown>;
  texts: readonly string[];
}

export const GROUPS: readonly Group[] = [
  {
    label: "good",
    metadata: { kind: "review", positive: true },
    texts: [
      "I loved every minute of this film.",
      "The food was delicious and the staff were kind.",
      "What a wonderful and clever play.",
      "The music was beautiful from start to end.",
      "This book is the best I have read all year.",
      "Our guide was patient and full of good stories.",
      "The room was bright, quiet and very clean.",
      "A warm and funny story with a great cast.",
      "The garden tour was a perfect afternoon.",
      "Everyone left the concert with a happy smile.",
    ],
  },
  {
    label: "bad",
    metadata: { kind: "review", positive: false },
    texts: [
      "I hated every minute of this film.",
      "The food was cold and the staff were rude.",
      "What a boring and clumsy play.",
      "The music was awful from start to end.",
      "This book is the worst I have read all year.",
      "Our guide was impatient and full of complaints.",
      "The room was dark, noisy and very dirty.",
      "A cold and dull story with a poor cast.",
      "The garden tour was a wasted afternoon.",
      "Everyone left the concert with an angry frown.",
    ],
  },
  {
    label: "place",
    metadata: { kind: "fact" },
    texts: [
      "The Eiffel Tower is in the city of Paris.",
      "The Colosseum is in the city of Rome.",
      "The Brandenburg Gate is in the city of Berlin.",
      "The Kremlin is in the city of Moscow.",
      "The Parthenon is in the city of Athens.",
      "The Statue of Liberty is in the city of New York.",
      "Big Ben stands in the city of London.",
      "The Louvre is a museum in the city of Paris.",
      "The Prado is a museum in the city of Madrid.",
      "The Opera House stands in the city of Sydney.",
    ],
  },
];

/** The two prompts of a patching experiment, and the answers that it tells apart. */
export const IOI = {
  clean: "When John and Mary went to the store, John gave a drink to",
  corrupt: "When John and Mary went to the store, Mary gave a drink to",
  answer: " Mary",
  against: " John",
};

/** What the lens and the attention are shown for. */
export const LANDMARK = "The Eiffel Tower is in the city of";
