import type { PageProps } from "../routes";

export function PatchingPage(_: PageProps) {
    return <h1>Patching</h1>;
}
