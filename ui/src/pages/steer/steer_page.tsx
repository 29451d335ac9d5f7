import type { PageProps } from "../routes";

export function SteerPage(_: PageProps) {
    return <h1>Steer</h1>;
}
