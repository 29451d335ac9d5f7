/** The tokens of a text as a strip: coloured by a value, selected by click or keys. */
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { Scale } from "../colour/scale";
import { visible } from "../format/tokens";
import { Tip } from "./heatmap";

export interface StripToken {
  text: string;
  id: number;
  /** Whether it is a special token of the tokenizer, such as BOS: it gets a frame. */
  isSpecial?: boolean | undefined;
}

export interface TokenStripProps {
  /** What the strip is, for those who do not see it. */
  label: string;
  tokens: readonly StripToken[];
  /** One value for each token, shown as its colour; needs `scale`. NaN for none. */
  values?: ArrayLike<number> | undefined;
  scale?: Scale | undefined;
  selected?: ReadonlySet<number> | undefined;
  /** A click, Enter or Space on a token. Without it tokens cannot be selected. */
  onSelect?: ((position: number, event: MouseEvent | KeyboardEvent) => void) | undefined;
  onHover?: ((position: number | null) => void) | undefined;
  /** A token in words with its value; shown on hover and read out. */
  describe?: ((position: number) => string) | undefined;
}

export function TokenStrip(props: TokenStripProps) {
  const { label, tokens, values, scale, selected, onSelect, onHover } = props;
  const list = useRef<HTMLDivElement>(null);
  /** The token that Tab leads to. */
  const current = useSignal(0);
  const tip = useSignal<{ x: number; y: number; position: number } | null>(null);
  const describe =
    props.describe ??
    ((position: number) => `${position}: ${visible(tokens[position]?.text ?? "")} (id ${tokens[position]?.id})`);
  const focus = (position: number) => {
    const next = Math.min(tokens.length - 1, Math.max(0, position));
    current.value = next;
    (list.current?.children[next] as HTMLElement | undefined)?.focus();
  };
  const onKeyDown = (event: KeyboardEvent, position: number) => {
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
    const step = steps[event.key];
    if (step !== undefined) focus(position + step);
    else if (event.key === "Home") focus(0);
    else if (event.key === "End") focus(tokens.length - 1);
    else return;
    event.preventDefault();
  };
  const reachable = Math.min(current.value, tokens.length - 1);
  return (
    <>
      <div ref={list} class="token-strip" role="group" aria-label={label}>
        {tokens.map((token, position) => {
          const value = values?.[position];
          const colour = scale && value !== undefined ? { background: scale.css(value), color: scale.ink(value) } : undefined;
          const kind = `token${token.isSpecial ? " token-special" : ""}${onSelect ? "" : " token-still"}`;
          return (
            <button
              key={position}
              type="button"
              class={kind}
              style={colour}
              tabIndex={position === reachable ? 0 : -1}
              aria-label={describe(position)}
              aria-pressed={onSelect ? (selected?.has(position) ?? false) : undefined}
              onClick={(event) => onSelect?.(position, event)}
              onKeyDown={(event) => onKeyDown(event, position)}
              onFocus={() => {
                current.value = position;
                onHover?.(position);
              }}
              onMouseMove={(event) => {
                tip.value = { x: event.clientX, y: event.clientY, position };
                if (current.peek() !== position || !tip.peek()) onHover?.(position);
              }}
              onMouseLeave={() => {
                tip.value = null;
                onHover?.(null);
              }}
            >
              <bdi>{visible(token.text)}</bdi>
            </button>
          );
        })}
      </div>
      {tip.value && <Tip x={tip.value.x} y={tip.value.y} text={describe(tip.value.position)} />}
    </>
  );
}
