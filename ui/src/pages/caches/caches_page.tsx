import type { PageProps } from "../routes";

export function CachesPage(_: PageProps) {
    return <h1>Caches</h1>;
}
