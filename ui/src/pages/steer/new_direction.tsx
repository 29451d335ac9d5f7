/** A direction from two sets of texts or of stored caches: the mean of one less the mean of the other, at each layer. */
import { useSignal } from "@preact/signals";
import { Choice, TextArea, TextField } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import type { ReadyModel } from "../../server/catalogue";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";

const EXAMPLE = {
  name: "delight",
  positive:
    "I am so happy today, everything is wonderful.\nWhat a delightful and joyful surprise!\nShe laughed with joy and danced.\nI love this beautiful morning.",
  negative:
    "I am so sad today, everything is terrible.\nWhat a dreadful and painful loss.\nShe wept with grief and trembled.\nI hate this miserable morning.",
};

/** What tells the two sets apart: texts that are captured now, or caches that are stored. */
type Source = "texts" | "tags" | "label";
const SOURCES = [
  { value: "texts", label: "Texts" },
  { value: "tags", label: "Tags of caches" },
  { value: "label", label: "Labels of caches" },
] as const;

export function NewDirection(props: {
  model: ReadyModel;
  /** Names that are in use: nothing is captured for a direction that could not be stored. */
  taken: ReadonlySet<string>;
  isOpen: boolean;
  onMade: (name: string) => void;
}) {
  const { model, taken, isOpen, onMade } = props;
  const name = useSignal("");
  const source = useSignal<Source>("texts");
  const positive = useSignal("");
  const negative = useSignal("");
  const linesOf = (text: string) => text.split("\n").filter((line) => line.trim() !== "");
  const make = useAction(async (signal) => {
    const capture = async (text: string) =>
      (
        await client.run(
          {
            model: model.id,
            input: linesOf(text),
            capture: { hooks: ["resid_post"] },
            tags: [`direction:${name.value}`],
          },
          { signal },
        )
      ).caches;
    const stored = (word: string) => ({ model: model.id, ...(source.value === "tags" ? { tags: [word] } : { label: word }) });
    const isCaptured = source.value === "texts";
    const body = {
      method: "difference_of_means" as const,
      name: name.value,
      positive: isCaptured ? await capture(positive.value) : stored(positive.value),
      negative: isCaptured ? await capture(negative.value) : stored(negative.value),
    };
    await client.post("/v1/directions", { body, signal });
    name.value = "";
    onMade(body.name);
  });
  const isTaken = taken.has(name.value) && !make.isRunning;
  const isSame = source.value !== "texts" && positive.value === negative.value;
  const isReady =
    !isTaken &&
    !isSame &&
    /^[\w.-]{1,128}$/.test(name.value) &&
    linesOf(positive.value).length > 0 &&
    linesOf(negative.value).length > 0;
  return (
    <details class="card steer-new" open={isOpen}>
      <summary>Make a direction from two sets of texts or caches</summary>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (isReady) void make.run();
        }}
      >
        <Choice
          label="From what it is made"
          value={source.value}
          options={SOURCES}
          onChange={(value) => {
            source.value = value;
            positive.value = negative.value = "";
          }}
        />
        <p class="soft">
          The direction is the mean of the residual stream at the last tokens of one set, less that of the other, at each layer.{" "}
          {source.value === "texts" ? (
            <>
              One text per line. Their caches are stored, with the tag <code>direction:{name.value || "name"}</code>.{" "}
              <button
                type="button"
                class="quiet"
                onClick={() => {
                  name.value = EXAMPLE.name;
                  positive.value = EXAMPLE.positive;
                  negative.value = EXAMPLE.negative;
                }}
              >
                Fill in an example
              </button>
            </>
          ) : (
            <>
              It takes every cache of {model.id} that has the {source.value === "tags" ? "tag" : "label"}:{" "}
              <Link to={href("/caches")}>the list of caches</Link> shows them.
            </>
          )}
        </p>
        <div class="columns">
          {source.value === "texts" ? (
            <>
              <TextArea
                label="Texts that have it"
                rows={4}
                value={positive.value}
                onInput={(value) => (positive.value = value)}
              />
              <TextArea
                label="Texts that lack it"
                rows={4}
                value={negative.value}
                onInput={(value) => (negative.value = value)}
              />
            </>
          ) : (
            <>
              <TextField
                label={`${source.value === "tags" ? "Tag" : "Label"} of those that have it`}
                value={positive.value}
                onInput={(value) => (positive.value = value)}
              />
              <TextField
                label={`${source.value === "tags" ? "Tag" : "Label"} of those that lack it`}
                value={negative.value}
                onInput={(value) => (negative.value = value)}
              />
            </>
          )}
        </div>
        <div class="row steer-controls">
          <TextField
            label="Name"
            value={name.value}
            onInput={(value) => (name.value = value)}
            hint="Letters, digits, dots, hyphens and underscores."
          />
          <button type="submit" class="primary" disabled={!isReady || make.isRunning}>
            {make.isRunning ? "Making it …" : "Make the direction"}
          </button>
        </div>
        {isSame && positive.value !== "" && <p class="fault fault-bad">Both sets are the same.</p>}
        {isTaken && <p class="fault fault-bad">There is a direction of this name: choose another one.</p>}
        {make.error !== undefined && <ProblemNote error={make.error} />}
      </form>
    </details>
  );
}
