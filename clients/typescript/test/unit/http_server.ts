import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { after } from "node:test";

/** A request as it arrived. */
export interface Received {
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  body: string;
}

/** Answers one request. */
export type Handler = (request: Received, response: ServerResponse) => void;

/** A server whose first request is answered by the first handler, and so on; the last one answers all others. */
export async function scripted(...handlers: Handler[]): Promise<{ url: string; received: Received[]; close: () => void }> {
  const received: Received[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      const one = { method, url, headers, body: Buffer.concat(chunks).toString() };
      const handler = handlers[Math.min(received.push(one), handlers.length) - 1];
      handler?.(one, response);
    });
  });
  server.on("connection", (socket) => sockets.add(socket.on("close", () => sockets.delete(socket))));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.close();
    sockets.forEach((socket) => socket.destroy());
  };
  after(close);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received, close };
}

/** Answers with JSON. */
export function json(status: number, value: unknown, headers: Record<string, string> = {}): Handler {
  return (_, response) => {
    const type = status < 400 ? "application/json" : "application/problem+json";
    response.writeHead(status, { "content-type": type, ...headers }).end(JSON.stringify(value));
  };
}

/** A problem as the server writes it. */
export function problem(status: number, code: string, headers: Record<string, string> = {}): Handler {
  return json(status, { type: `urn:residuum:${code}`, title: "A title", status, detail: "what was wrong", code }, headers);
}

/** Ends the connection without an answer. */
export const hangUp: Handler = (_, response) => void response.socket?.destroy();
