/** The same request as a line of curl, Python or the command line. */

export interface ApiRequest {
  method?: "GET" | "POST" | "PATCH" | "DELETE";
  /** Path and query, such as `/v1/runs?wait=10`. */
  path: string;
  body?: unknown;
  /** File to write a binary answer to. */
  output?: string;
}

/** A word for a POSIX shell. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A curl command. With a key in use, it reads the key from the environment: a copied command shows no secret. */
export function curlOf(request: ApiRequest, origin: string, hasKey: boolean): string {
  const { method = "GET", path, body, output } = request;
  const parts = ["curl -s"];
  if (method !== "GET" && !(method === "POST" && body !== undefined)) parts.push(`-X ${method}`);
  parts.push(shellWord(origin + path));
  if (hasKey) parts.push('-H "Authorization: Bearer $RESIDUUM_API_KEY"');
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${shellWord(JSON.stringify(body))}`);
  if (output !== undefined) parts.push(`-o ${shellWord(output)}`);
  return parts.join(parts.join(" ").length > 100 ? " \\\n  " : " ");
}

/** A Python literal of a JSON value. */
export function pythonOf(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : `float("${value}")`;
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(pythonOf).join(", ")}]`;
  const pairs = Object.entries(value as object).filter(([, inner]) => inner !== undefined);
  return `{${pairs.map(([name, inner]) => `${JSON.stringify(name)}: ${pythonOf(inner)}`).join(", ")}}`;
}

/** Keyword arguments of a Python call; undefined values are left out. */
export function pythonArguments(values: Record<string, unknown>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return given.map(([name, value]) => `${name}=${pythonOf(value)}`).join(", ");
}

/** The lines that make `client` in Python. */
export function pythonClient(origin: string): string {
  return `import residuum as rs\n\nclient = rs.Client(${JSON.stringify(origin)})`;
}
