import type { PageProps } from "../routes";

export function RunsPage(_: PageProps) {
    return <h1>Runs</h1>;
}
