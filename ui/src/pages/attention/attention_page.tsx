import type { PageProps } from "../routes";

export function AttentionPage(_: PageProps) {
    return <h1>Attention</h1>;
}
