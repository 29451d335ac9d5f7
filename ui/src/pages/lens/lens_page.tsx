import type { PageProps } from "../routes";

export function LensPage(_: PageProps) {
    return <h1>Lens</h1>;
}
