import type { PageProps } from "../routes";

export function RunPage(_: PageProps) {
    return <h1>Run</h1>;
}
