/** Tokens as the page shows them: what cannot be seen gets a sign. */

/** Spaces as `·`, line ends as `↵`, tabs as `→`; control characters and invisible marks by their code. */
export function visible(text: string): string {
  if (text === "") return "∅";
  return text
    .replace(/ /g, "·")
    .replace(/\r?\n/g, "↵")
    .replace(/\t/g, "→")
    .replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (mark) => {
      return `⟨${(mark.codePointAt(0) as number).toString(16).padStart(4, "0").toUpperCase()}⟩`;
    });
}

/** The start of a text on one line. */
export function preview(text: string, length = 120): string {
  const line = text.replace(/\s+/g, " ").trim();
  const characters = [...line];
  return characters.length > length ? `${characters.slice(0, length - 1).join("")}…` : line;
}
