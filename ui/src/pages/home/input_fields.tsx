/** The text or chat of a run, with its tokens as the model will get them. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Check, Select, TextArea } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { TokenStrip } from "../../components/token_strip";
import { counted } from "../../format/numbers";
import type { Tokenization } from "../../server/catalogue";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { type ChatMessage, type RunForm, textsOf } from "./form";
import { marked, withPosition } from "./positions";

interface Props {
  form: RunForm;
  set: (change: Partial<RunForm>) => void;
}

const EXAMPLES = [
  "The Eiffel Tower is in the city of",
  "When John and Mary went to the store, John gave a drink to",
  "The capital of France is Paris. The capital of Italy is",
];
/** More tokens than this are not drawn. */
const MOST_TOKENS = 600;

export function InputFields({ form, set }: Props) {
  return form.mode === "chat" ? <ChatFields form={form} set={set} /> : <TextFields form={form} set={set} />;
}

function TextFields({ form, set }: Props) {
  const texts = textsOf(form);
  return (
    <>
      <TextArea label="Text" value={form.text} rows={form.isByLine ? 5 : 3} onInput={(text) => set({ text })} />
      <div class="row new-run-lines">
        <Check label="Each line is a text of its own" checked={form.isByLine} onChange={(isByLine) => set({ isByLine })} />
        {form.isByLine && <span class="soft">{counted(texts.length, "text")}</span>}
        <span class="spacer" />
        <Bos form={form} set={set} />
      </div>
      {form.text === "" && (
        <p class="examples">
          <span class="soft">Try</span>{" "}
          {EXAMPLES.map((text) => (
            <button key={text} type="button" class="quiet" onClick={() => set({ text })}>
              {text}
            </button>
          ))}
        </p>
      )}
      <Tokens form={form} set={set} request={texts[0] === undefined ? null : { text: texts[0] }} nTexts={texts.length} />
    </>
  );
}

function ChatFields({ form, set }: Props) {
  const messages: ChatMessage[] = form.messages.length > 0 ? form.messages : [{ role: "user", content: "" }];
  const change = (index: number, message: Partial<ChatMessage>) =>
    set({ messages: messages.map((old, i) => (i === index ? { ...old, ...message } : old)) });
  const written = messages.filter(({ content }) => content !== "");
  const next = messages.at(-1)?.role === "user" ? "assistant" : "user";
  return (
    <>
      {messages.map((message, index) => (
        <div class="chat-message" key={index}>
          <Select
            label={`Role of message ${index + 1}`}
            value={message.role}
            options={["system", "user", "assistant"].map((role) => ({ value: role, label: role }))}
            onChange={(role) => change(index, { role })}
          />
          <TextArea
            label={`Message ${index + 1}`}
            rows={2}
            value={message.content}
            onInput={(content) => change(index, { content })}
          />
          {messages.length > 1 && (
            <button
              type="button"
              class="quiet"
              aria-label={`Remove message ${index + 1}`}
              onClick={() => set({ messages: messages.filter((_, i) => i !== index) })}
            >
              Remove
            </button>
          )}
        </div>
      ))}
      <button type="button" class="quiet" onClick={() => set({ messages: [...messages, { role: next, content: "" }] })}>
        Add a message
      </button>
      <Tokens form={form} set={set} request={written.length === 0 ? null : { messages: written }} nTexts={1} />
    </>
  );
}

function Bos({ form, set }: Props) {
  return (
    <Select<RunForm["bos"]>
      label="Special tokens"
      value={form.bos}
      options={[
        { value: "auto", label: "as the tokenizer does" },
        { value: "with", label: "begin with BOS" },
        { value: "without", label: "add none" },
      ]}
      onChange={(bos) => set({ bos })}
    />
  );
}

/** A value that follows another one when that has rested for a while. */
function useRested<Value>(value: Value, key: string, milliseconds: number): Value {
  const rested = useSignal(value);
  useEffect(() => {
    const timer = setTimeout(() => {
      rested.value = value;
    }, milliseconds);
    return () => clearTimeout(timer);
  }, [key]);
  return rested.value;
}

function Tokens(props: Props & { request: { text: string } | { messages: ChatMessage[] } | null; nTexts: number }) {
  const { form, set, request, nTexts } = props;
  const key = request && JSON.stringify([form.model, request, form.bos]);
  const rested = useRested({ key, request }, key ?? "", 150);
  const tokens = useResource(rested.key, async (signal) => {
    const bos = form.bos === "auto" ? {} : { prepend_bos: form.bos === "with" };
    const body = { model: form.model, ...(rested.request as { text: string }), ...bos };
    return (await client.post("/v1/tokenize", { body, signal })) as Tokenization;
  });
  // The tokens stay until the next ones are there, so that the page does not jump.
  const last = useRef<{ model: string; found: Tokenization } | undefined>(undefined);
  if (tokens.value) last.current = { model: form.model, found: tokens.value };
  if (request === null) return null;
  const found = last.current?.model === form.model ? last.current.found : undefined;
  if (tokens.error !== undefined) return <ProblemNote error={tokens.error} />;
  if (!found) return <p class="loading new-run-tokens">Tokens …</p>;
  const shown = found.tokens.slice(0, MOST_TOKENS);
  return (
    <div class="new-run-tokens">
      <TokenStrip
        label="Tokens of the text: a click chooses the positions to capture"
        tokens={shown.map((text, i) => ({ text, id: found.token_ids[i] as number, isSpecial: found.special[i] }))}
        selected={marked(form.positions, found.n_tokens)}
        onSelect={(position) => set({ positions: withPosition(form.positions, position) })}
      />
      <p class="soft">
        {counted(found.n_tokens, "token")}
        {nTexts > 1 && ` in the first of ${nTexts} texts`}
        {shown.length < found.n_tokens && `, the first ${MOST_TOKENS} shown`}. {bosOf(found)}
        {form.positions === "" && " Click tokens to capture just these."}
      </p>
    </div>
  );
}

/** Whether there is a BOS token, in words. */
function bosOf({ bos }: Tokenization): string {
  if (bos.present)
    return bos.added ? "A beginning-of-sequence token was added." : "It begins with its own beginning-of-sequence token.";
  return bos.token_id == null ? "The tokenizer has no beginning-of-sequence token." : "No beginning-of-sequence token is added.";
}
