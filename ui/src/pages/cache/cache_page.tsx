import type { PageProps } from "../routes";

export function CachePage(_: PageProps) {
    return <h1>Cache</h1>;
}
