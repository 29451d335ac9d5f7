import type { PageProps } from "../routes";

export function MapPage(_: PageProps) {
    return <h1>Map</h1>;
}
