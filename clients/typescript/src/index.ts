export * from "./http.js";
export * from "./types.js";
export * from "./error.js";
import { Transport, type TransportOptions } from "./transport.js";
import { httpClient, throwing } from "./http.js";
export function createClient(o: TransportOptions) { const t = new Transport(o); const http = httpClient(t); return { http, ...throwing(http, t.baseUrl) }; }
export type Client = ReturnType<typeof createClient>;
