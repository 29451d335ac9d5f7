/** The action of a page as a command that can be copied: curl, Python, or Residuum's command line. */
import { useSignal } from "@preact/signals";
import { type ApiRequest, curlOf } from "../format/snippets";
import { apiKey } from "../server/key";

export interface CopyAsProps {
  /** The request that the page sends for this. */
  request: ApiRequest;
  /** The same with the Python client; may be several lines. */
  python: string;
  /** The same on the command line, where there is a command for it. */
  cli?: string | undefined;
}

const NAMES = { curl: "curl", python: "Python", cli: "Command line" } as const;
type Kind = keyof typeof NAMES;

export function CopyAs({ request, python, cli }: CopyAsProps) {
  const kind = useSignal<Kind | null>(null);
  const said = useSignal("");
  const textOf = (one: Kind): string => {
    if (one === "curl") return curlOf(request, location.origin, apiKey.value !== "");
    return one === "python" ? python : (cli ?? "");
  };
  const kinds = (["curl", "python", "cli"] as const).filter((one) => one !== "cli" || cli !== undefined);
  const copy = async (one: Kind) => {
    kind.value = kind.peek() === one ? null : one;
    if (kind.peek() === null) return;
    try {
      await navigator.clipboard.writeText(textOf(one));
      said.value = "copied";
    } catch {
      // Only pages of https and localhost may write to the clipboard: then the text is there to be selected.
      said.value = "select the text to copy it";
    }
  };
  return (
    <div class="copy-as">
      <span class="soft">Copy as</span>
      {kinds.map((one) => (
        <button key={one} type="button" class="quiet" aria-expanded={kind.value === one} onClick={() => void copy(one)}>
          {NAMES[one]}
        </button>
      ))}
      {kind.value && (
        <div class="copy-as-text">
          <pre tabIndex={0} aria-label={NAMES[kind.value]}>
            {textOf(kind.value)}
          </pre>
          <output class="soft">{said.value}</output>
        </div>
      )}
    </div>
  );
}
