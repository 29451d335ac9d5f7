import type { PageProps } from "../routes";

export function SearchPage(_: PageProps) {
    return <h1>Search</h1>;
}
