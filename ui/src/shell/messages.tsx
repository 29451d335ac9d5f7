/** Messages that concern every page: the server is gone, or wants a key. */
import { useSignal } from "@preact/signals";
import { Dialog } from "../components/dialog";
import { TextField } from "../components/fields";
import { askAgain, connection, epoch } from "../server/connection";
import { apiKey, keyWanted, setKey } from "../server/key";

export function LostServer() {
  if (connection.value === "up") return null;
  return (
    <div class="banner" role="status">
      The server does not answer. It is asked again every two seconds; what you see may be old.
      <button type="button" onClick={() => void askAgain()}>
        Ask now
      </button>
    </div>
  );
}

export function KeyDialog() {
  return keyWanted.value ? <AskForKey /> : null;
}

function AskForKey() {
  const text = useSignal("");
  const had = apiKey.value !== "";
  const use = (key: string) => {
    setKey(key.trim());
    epoch.value++;
  };
  return (
    <Dialog
      title="API key"
      onClose={() => {
        keyWanted.value = false;
      }}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (text.value.trim()) use(text.value);
        }}
      >
        <p>
          {had
            ? "Requests carry a key. If the server refuses it, it may have been revoked or have expired."
            : "A server with API keys answers only requests that carry one. Whoever runs the server makes them with “residuum keys create”."}{" "}
          The key is kept for this tab alone, and is never part of an address.
        </p>
        <TextField
          label="Key"
          type="password"
          value={text.value}
          mono
          onInput={(value) => {
            text.value = value;
          }}
        />
        <div class="buttons">
          {had && (
            <button type="button" onClick={() => use("")}>
              Forget the key
            </button>
          )}
          <button type="button" onClick={() => (keyWanted.value = false)}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={!text.value.trim()}>
            Use this key
          </button>
        </div>
      </form>
    </Dialog>
  );
}
