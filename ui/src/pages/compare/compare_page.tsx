import type { PageProps } from "../routes";

export function ComparePage(_: PageProps) {
    return <h1>Compare</h1>;
}
