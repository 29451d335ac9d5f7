import type { PageProps } from "../routes";

export function ServerPage(_: PageProps) {
    return <h1>Server</h1>;
}
